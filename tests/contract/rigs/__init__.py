"""Boards under contract: each rig is one kind of board with its power switch, and can make a stranger of its kind."""

from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.contract.rigs.imx import make_imx
from tests.contract.rigs.rig import Rig, check_signature
from tests.contract.rigs.sim import make_sim
from tests.contract.rigs.tpm import make_tpm, make_tpm_with_sealed_keys

__all__ = ["RIGS", "Kind", "Rig", "check_signature", "kinds_of"]

WHOLE: Final = frozenset({"soc", "attester", "sealer", "keyring"})


@dataclass(frozen=True)
class Kind:
    """One kind of board: how it is made, and which of its ports come under contract."""

    make: Callable[[Path], AbstractContextManager[Rig]]
    ports: Set[str] = WHOLE


RIGS: Final[Mapping[str, Kind]] = {
    "sim": Kind(make_sim),
    "imx": Kind(make_imx, ports=frozenset({"soc"})),
    "tpm": Kind(make_tpm),
    "tpm-with-sealed-keys": Kind(make_tpm_with_sealed_keys),
}


def kinds_of(port: str) -> list[str]:
    """The kinds of board whose `port` comes under contract."""
    return [name for name, kind in RIGS.items() if port in kind.ports]
