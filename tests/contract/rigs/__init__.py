"""Boards under contract: each rig is one kind of board with its power switch, and can make a stranger of its kind."""

from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.contract.rigs.attestation import make_attestation
from tests.contract.rigs.card import make_card_board, make_pcsc_board
from tests.contract.rigs.imx import make_imx
from tests.contract.rigs.kernel_key import make_kernel_key
from tests.contract.rigs.mp import make_mp, make_secret_mp
from tests.contract.rigs.pkcs11 import make_pkcs11, make_pkcs11_without_gcm
from tests.contract.rigs.rig import Rig, check_signature
from tests.contract.rigs.sim import make_secret_sim, make_sim
from tests.contract.rigs.tpm import make_tpm, make_tpm_with_sealed_keys
from tests.contract.rigs.tpm_pcr import make_measured

__all__ = ["RIGS", "Kind", "Rig", "check_signature", "kinds_of"]

WHOLE: Final = frozenset({"soc", "attester", "sealer", "keyring"})
CARD: Final = frozenset({"attester", "keyring"})
TOKEN: Final = frozenset({"sealer", "keyring"})


@dataclass(frozen=True)
class Kind:
    """One kind of board: how it is made, and which of its ports come under contract."""

    make: Callable[[Path], AbstractContextManager[Rig]]
    ports: Set[str] = WHOLE
    sealer: str = "tpm"
    """Its sealer's name, as receipts print it."""
    shelved: str = "sealed-key-"
    """What stands before the label in the name of a key's blob on the shelf."""


RIGS: Final[Mapping[str, Kind]] = {
    "sim": Kind(make_sim, sealer="sim"),
    "sim-secret": Kind(make_secret_sim, frozenset({"class_key"})),
    "mp-secret": Kind(make_secret_mp, frozenset({"class_key"})),
    "imx": Kind(make_imx, ports=frozenset({"soc"})),
    "mp": Kind(make_mp, ports=frozenset({"attester"})),
    "optee": Kind(make_attestation, ports=frozenset({"attester"})),
    "tpm": Kind(make_tpm, shelved="tpm-key-"),
    "tpm-with-sealed-keys": Kind(make_tpm_with_sealed_keys),
    "tpm-measured": Kind(make_measured, frozenset({"sealer"})),
    "pkcs11": Kind(make_pkcs11, TOKEN, sealer="pkcs11", shelved="pkcs11-key-"),
    "pkcs11-without-gcm": Kind(make_pkcs11_without_gcm, TOKEN, sealer="pkcs11", shelved="pkcs11-key-"),
    "kernel-key": Kind(make_kernel_key, frozenset({"sealer"}), sealer="caam"),
    "card": Kind(make_card_board, CARD, sealer="sim", shelved="card-key-"),
    "card-over-pcsc": Kind(make_pcsc_board, frozenset({"attester"}), sealer="sim", shelved="card-key-"),
}


def kinds_of(port: str) -> list[str]:
    """The kinds of board whose `port` comes under contract."""
    return [name for name, kind in RIGS.items() if port in kind.ports]
