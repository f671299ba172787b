"""The closed list of backends. The image names some of each sort in the order it prefers them; no other is tried.

A part that this board does not have moves on to the next name. A part that is there and broken stops: going on would
let whoever breaks the better one choose the worse.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import UUID

from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareGone
from mpagent.hal import ports

if TYPE_CHECKING:
    from mpagent.hal.card import CardParts
    from mpagent.hal.mp import Part as MpPart
    from mpagent.hal.pkcs11 import Pkcs11Parts
    from mpagent.hal.tpm import TpmParts

TEE_DEADLINE_S: Final = 5.0
"""For one call to OP-TEE: an RSA key may have to be made, and a TA that nobody loads answers never."""
_SIM_MODULE: Final = "mpsim.backend"
Kept = TypeVar("Kept")


class PcrChoice(NamedTuple):
    """What sealing by the TPM is bound to; see hal.tpm.pcrs.PcrBinding."""

    authority: bytes
    pcrs: tuple[int, ...]
    realm: str
    product: str
    approvals: Path


class TokenChoice(NamedTuple):
    """The PKCS#11 token that keeps keys; see hal.pkcs11.open_pkcs11."""

    module: Path
    token: str
    pin_file: Path
    serial: bytes | None = None


class CardWanted(NamedTuple):
    """The card that attests; see hal.card.CardChoice."""

    pin_file: Path
    reader: str = ""
    chain_file: Path | None = None


class BoardChoice(NamedTuple):
    """Which backends may do what, as anchors.toml says: names of each sort, the preferred one first."""

    attest: tuple[str, ...]
    seal: tuple[str, ...]
    keys: tuple[str, ...]
    soc: tuple[str, ...]
    counter: tuple[str, ...] = ()
    """Of the vault; none where the image names none."""
    tpm_tcti: str | None = None
    """"device:/dev/tpmrm0" or "swtpm:path=SOCKET"; needed when any part is "tpm"."""
    sim_chip: Path | None = None
    """Folder of the simulated chip; needed when any part is "sim". Paths are below `root` unless absolute."""
    mp_key_ids: tuple[bytes, ...] = ()
    """SHA-256(X || Y) of the class keys this image expects of its parts."""
    optee_node: Path = Path("/dev/tee0")
    relay_tas: tuple[UUID, ...] = ()
    """TAs that pass a message on to the MP engine, tried after the pseudo-TA."""
    open_blob: bytes | None = None
    """A trusted key's blob, 80 bytes, made by the CAAM of an open part: a closed part refuses it."""
    kernel_key_sources: tuple[str, ...] = ("caam",)
    """What the kernel's trusted keys may rest on."""
    mp_secret: bool = False
    """mp_use `secret`: the MP engine gives its public key to the agent, and nothing on this board makes it sign."""
    pcrs: PcrChoice | None = None
    token: TokenChoice | None = None
    card: CardWanted | None = None


class NoSoc:
    """A part that says nothing of itself: on a board that is known by its TPM."""

    def read_facts(self) -> ports.SocFacts:
        """Nothing is knowable, so nothing is claimed."""
        return ports.SocFacts(family="generic", uid=None, life_cycle=None, srk_hash=None)


class Bench:
    """Opens each chip at the first part that wants it, once, and closes it with the board."""

    def __init__(self, choice: BoardChoice, root: Path, shelf: ports.Shelf, stack: ExitStack) -> None:
        self.choice: Final = choice
        self.root: Final = root
        self.shelf: Final = shelf
        self._stack = stack

    # Each backend is imported by the first part that wants it: a board without a TPM pays nothing for one.

    @cached_property
    def tpm(self) -> "TpmParts":
        """Raises ConfigWrong, HardwareAbsent, HardwareGone; so do the others."""
        tcti = need(self.choice.tpm_tcti, "tpm", "tpm_tcti", "where the TPM is")
        from mpagent.hal.tpm import PcrBinding, open_tpm

        binding, wanted = None, self.choice.pcrs
        if wanted is not None:
            binding = PcrBinding(*wanted)._replace(approvals=self.root / wanted.approvals)
        return self._stack.enter_context(open_tpm(tcti, self.shelf, binding))

    @cached_property
    def token(self) -> "Pkcs11Parts":
        token = need(self.choice.token, "pkcs11", "[pkcs11]", "which token it is")
        from mpagent.hal.pkcs11 import open_pkcs11

        return self._stack.enter_context(
            open_pkcs11(token.module, token.token, token.pin_file, self.shelf, token.serial)
        )

    @cached_property
    def card(self) -> "CardParts":
        card = need(self.choice.card, "card", "[card]", "where its PIN lies")
        from mpagent.hal.card import CardChoice, open_card

        return open_card(CardChoice(*card), self.shelf, _open_sealed_keyring(self))

    @property
    def optee_node(self) -> Path:
        """The device node of OP-TEE."""
        return self.root / self.choice.optee_node

    @cached_property
    def mp_part(self) -> "MpPart":
        """What makes the texts of MP's failures exact, where this is an i.MX we know."""
        from mpagent.hal.mp import UNKNOWN_PART, Part
        from mpagent.hal.soc import read_identity

        try:
            found = read_identity(self.root)
        except HardwareGone:  # no i.MX, or one we have no table of: that is for `soc` to say
            return UNKNOWN_PART
        return Part(found.layout.family, found.revision)

    def open_sim(self, opener: str) -> Any:
        """One part of the simulated chip; Any, because the module is not there on a device."""
        chip = need(self.choice.sim_chip, "sim", "sim_chip", "where the chip is")
        try:
            module = import_module(_SIM_MODULE)
        except ImportError as missing:
            raise ConfigWrong(
                "simulated hardware is not installed here: install mpagent-sim, or choose real parts",
                detail=str(missing),
            ) from None
        return getattr(module, opener)(self.root / chip)

    @cached_property
    def soc(self) -> tuple[str, ports.Soc]:
        """The name that was there, and its part; so are the next three."""
        return _pick("soc", self.choice.soc, SOCS, self)

    @cached_property
    def attester(self) -> tuple[str, ports.Attester]:
        if self.choice.mp_secret:
            from mpagent.hal.shut import SecretAttester

            return self.class_key[0], SecretAttester()
        return _pick("attest", self.choice.attest, ATTESTERS, self)

    @cached_property
    def class_key(self) -> tuple[str, ports.ClassKey]:
        """Under mp_use `secret` alone; named by `attest`, as what it is read from is."""
        return _pick("attest", self.choice.attest, CLASS_KEYS, self)

    @cached_property
    def sealer(self) -> tuple[str, ports.Sealer]:
        return _pick("seal", self.choice.seal, SEALERS, self)

    @cached_property
    def keyring(self) -> tuple[str, ports.Keyring]:
        return _pick("keys", self.choice.keys, KEYRINGS, self)

    @cached_property
    def counter(self) -> tuple[str, ports.Counter]:
        return _pick("counter", self.choice.counter, COUNTERS, self)


def need(given: Kept | None, backend: str, key: str, tells: str) -> Kept:
    """What a backend cannot be opened without. Raises ConfigWrong."""
    if given is None:
        raise ConfigWrong(f'a part of this board is "{backend}", and {key} does not say {tells}')
    return given


Part = TypeVar("Part")
Opener = Callable[[Bench], Part]


def _open_sim_attester(bench: Bench) -> ports.Attester:
    _check_may_sign(bench)
    attester: ports.Attester = bench.open_sim("open_attester")
    return attester


def _open_sim_sealer(bench: Bench) -> ports.Sealer:
    sealer: ports.Sealer = bench.open_sim("open_sealer")
    return sealer


def _open_sim_soc(bench: Bench) -> ports.Soc:
    soc: ports.Soc = bench.open_sim("open_soc")
    return soc


def _open_sealed_keyring(bench: Bench) -> ports.Keyring:
    from mpagent.hal.software import SealedKeyring  # `status` and --version read this module for its names only

    return SealedKeyring(bench.sealer[1], bench.shelf)


def _check_may_sign(bench: Bench) -> None:
    """The second lock: whoever asks for this attester by its name. Raises ConfigWrong."""
    if bench.choice.mp_secret:
        raise ConfigWrong("this image says mp_use = secret, so no attester that signs by MP is opened")


def _open_sim_class_key(bench: Bench) -> ports.ClassKey:
    key: ports.ClassKey = bench.open_sim("open_class_key")
    return key


def _open_class_key(bench: Bench) -> ports.ClassKey:
    from mpagent.hal.mp import open_class_key

    return open_class_key(bench.optee_node, bench.choice.relay_tas, TEE_DEADLINE_S, bench.mp_part)


def _open_mp(bench: Bench) -> ports.Attester:
    _check_may_sign(bench)
    from mpagent.hal.mp import open_mp

    return open_mp(bench.optee_node, bench.choice.relay_tas, TEE_DEADLINE_S, bench.mp_part)


def _open_attestation(bench: Bench) -> ports.Attester:
    from mpagent.hal.attestation import open_attestation

    return open_attestation(bench.optee_node, TEE_DEADLINE_S)


def _open_imx(bench: Bench) -> ports.Soc:
    """OP-TEE is the second source of its fuses; the pinned MP key, else an open part's blob, shows a closed boot."""
    from mpagent.hal.soc import OpteeOcotp, PinnedKeyWitness, Witness, open_imx

    witnesses: list[Witness] = []
    if not bench.choice.mp_secret:
        witnesses.append(PinnedKeyWitness(lambda: bench.attester[1], bench.choice.mp_key_ids, os.urandom))
    if bench.choice.open_blob is not None:
        from mpagent.hal.caam.witness import OpenBlobWitness

        witnesses.append(OpenBlobWitness(bench.choice.open_blob.hex(), bench.root))
    return open_imx(bench.root, OpteeOcotp(bench.optee_node, TEE_DEADLINE_S), *witnesses)


def _open_kernel_key(bench: Bench) -> ports.Sealer:
    from mpagent.hal.caam import open_kernel_key

    open_chip = None if bench.choice.tpm_tcti is None else lambda: bench.tpm.chip
    return open_kernel_key(bench.choice.kernel_key_sources, open_chip, root=bench.root)


ATTESTERS: Final[Mapping[str, Opener[ports.Attester]]] = {
    "mp": _open_mp,
    "tpm": lambda bench: bench.tpm.attester,
    "card": lambda bench: bench.card.attester,
    "optee": _open_attestation,
    "sim": _open_sim_attester,
}
CLASS_KEYS: Final[Mapping[str, Opener[ports.ClassKey]]] = {"mp": _open_class_key, "sim": _open_sim_class_key}
"""Of ATTESTERS those whose public key can be a secret instead (mp_use)."""
SEALERS: Final[Mapping[str, Opener[ports.Sealer]]] = {
    "caam": _open_kernel_key,
    "tpm": lambda bench: bench.tpm.sealer,
    "pkcs11": lambda bench: bench.token.sealer,
    "sim": _open_sim_sealer,
}
KEYRINGS: Final[Mapping[str, Opener[ports.Keyring]]] = {
    "tpm": lambda bench: bench.tpm.keyring,
    "pkcs11": lambda bench: bench.token.keyring,
    "card": lambda bench: bench.card.keyring,
    "sealed": _open_sealed_keyring,
}
SOCS: Final[Mapping[str, Opener[ports.Soc]]] = {
    "imx": _open_imx,
    "sim": _open_sim_soc,
    "none": lambda _bench: NoSoc(),
}
COUNTERS: Final[Mapping[str, Opener[ports.Counter]]] = {"tpm": lambda bench: bench.tpm.counter}
OFFERED: Final[Mapping[str, Mapping[str, Opener[Any]]]] = {
    "soc": SOCS,
    "attest": ATTESTERS,
    "class-key": CLASS_KEYS,
    "seal": SEALERS,
    "keys": KEYRINGS,
    "counter": COUNTERS,
}


@contextmanager
def open_bench(choice: BoardChoice, root: Path, shelf: ports.Shelf) -> Iterator[Bench]:
    """Chips that open when a part of them is asked for; all are closed with the block. `root` is "/" on a device."""
    with ExitStack() as stack:
        yield Bench(choice, root, shelf, stack)


@contextmanager
def open_board(choice: BoardChoice, root: Path, shelf: ports.Shelf) -> Iterator[ports.Board]:
    """The board of this choice; its chips are closed with the block.

    Raises ConfigWrong for a name that is not in the list or a part that needs more than the choice says,
    HardwareAbsent when nothing of one sort is on this board, and what a broken part raises.
    """
    with open_bench(choice, root, shelf) as bench:
        (soc, soc_part), (attest, attester) = bench.soc, bench.attester
        (seal, sealer), (keys, keyring) = bench.sealer, bench.keyring
        chosen = {"soc": soc, "attest": attest, "seal": seal, "keys": keys}
        counter = None
        if choice.counter:
            chosen["counter"], counter = bench.counter
        yield ports.Board(
            soc=soc_part,
            attester=attester,
            sealer=sealer,
            keyring=keyring,
            counter=counter,
            class_key=bench.class_key[1] if choice.mp_secret else None,
            chosen=chosen,
            activator=bench.tpm.activator if attest == "tpm" else None,
            # Certified under the AK, which means nothing where another attester signs.
            key_prover=bench.tpm.key_prover if attest == keys == "tpm" else None,
        )


def open_part(bench: Bench, sort: str, name: str) -> Any:
    """The one part of this sort and name. Raises as `open_board` does; HardwareAbsent when this board has none.

    The sort "class-key" stands for "attest" under mp_use `secret`.
    """
    return _open(sort, name, OFFERED[sort], bench)


def _pick(sort: str, names: tuple[str, ...], offered: Mapping[str, Opener[Part]], bench: Bench) -> tuple[str, Part]:
    """The first of `names` that is on this board."""
    missing: list[str] = []
    for name in names:
        try:
            return name, _open(sort, name, offered, bench)
        except HardwareAbsent as absent:
            if len(names) == 1:
                raise
            missing.append(f"{name}: {absent}")
    raise HardwareAbsent(f"this board has nothing that the image names for {sort} ({'; '.join(missing)})")


def _open(sort: str, name: str, offered: Mapping[str, Opener[Part]], bench: Bench) -> Part:
    if name not in offered:
        raise ConfigWrong(f"{sort} = {name!r} is not one of: {', '.join(sorted(offered))}")
    return offered[name](bench)
