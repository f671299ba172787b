"""The closed list of backends. The image names some of each sort in the order it prefers them; no other is tried.

A part that this board does not have moves on to the next name. A part that is there and broken stops: going on would
let whoever breaks the better one choose the worse.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from mpagent.errors import ConfigWrong, HardwareAbsent
from mpagent.hal import ports

if TYPE_CHECKING:
    from mpagent.hal.tpm import TpmParts

_SIM_MODULE: Final = "mpsim.backend"
Part = TypeVar("Part")


class BoardChoice(NamedTuple):
    """Which backends may do what, as anchors.toml says: names of each sort, the preferred one first."""

    attest: tuple[str, ...]
    seal: tuple[str, ...]
    keys: tuple[str, ...]
    soc: tuple[str, ...]
    tpm_tcti: str | None = None
    """"device:/dev/tpmrm0" or "swtpm:path=SOCKET"; needed when any part is "tpm"."""
    sim_chip: Path | None = None
    """Folder of the simulated chip, below `root` unless absolute; needed when any part is "sim"."""
    mp_key_ids: tuple[bytes, ...] = ()
    """SHA-256(X || Y) of the class keys this image expects of its parts."""


class NoSoc:
    """A part that says nothing of itself: on a board that is known by its TPM."""

    def read_facts(self) -> ports.SocFacts:
        """Nothing is knowable, so nothing is claimed."""
        return ports.SocFacts(family="generic", uid=None, life_cycle=None, srk_hash=None)


class Bench:
    """Opens each chip at the first part that wants it, once, and closes it with the board."""

    def __init__(self, choice: BoardChoice, root: Path, shelf: ports.Shelf, stack: ExitStack) -> None:
        self._choice = choice
        self._root = root
        self._stack = stack
        self.shelf: Final = shelf

    @cached_property
    def tpm(self) -> "TpmParts":
        """Raises ConfigWrong, HardwareAbsent, HardwareGone."""
        if self._choice.tpm_tcti is None:
            raise ConfigWrong('a part of this board is "tpm", and tpm_tcti does not say where the TPM is')
        from mpagent.hal.tpm import open_tpm  # a board without a TPM pays nothing for it

        return self._stack.enter_context(open_tpm(self._choice.tpm_tcti, self.shelf))

    def open_sim(self, opener: str) -> Any:
        """One part of the simulated chip; Any, because the module is not there on a device."""
        if self._choice.sim_chip is None:
            raise ConfigWrong('a part of this board is "sim", and sim_chip does not say where the chip is')
        try:
            module = import_module(_SIM_MODULE)
        except ImportError as missing:
            raise ConfigWrong(
                "simulated hardware is not installed here: install mpagent-sim, or choose real parts",
                detail=str(missing),
            ) from None
        return getattr(module, opener)(self._root / self._choice.sim_chip)

    @cached_property
    def soc(self) -> tuple[str, ports.Soc]:
        """The name that was there, and its part; so are the next three."""
        return _pick("soc", self._choice.soc, SOCS, self)

    @cached_property
    def attester(self) -> tuple[str, ports.Attester]:
        return _pick("attest", self._choice.attest, ATTESTERS, self)

    @cached_property
    def sealer(self) -> tuple[str, ports.Sealer]:
        return _pick("seal", self._choice.seal, SEALERS, self)

    @cached_property
    def keyring(self) -> tuple[str, ports.Keyring]:
        return _pick("keys", self._choice.keys, KEYRINGS, self)


Opener = Callable[[Bench], Part]


def _open_sim_attester(bench: Bench) -> ports.Attester:
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


ATTESTERS: Final[Mapping[str, Opener[ports.Attester]]] = {
    "sim": _open_sim_attester,
    "tpm": lambda bench: bench.tpm.attester,
}
SEALERS: Final[Mapping[str, Opener[ports.Sealer]]] = {
    "sim": _open_sim_sealer,
    "tpm": lambda bench: bench.tpm.sealer,
}
KEYRINGS: Final[Mapping[str, Opener[ports.Keyring]]] = {
    "sealed": _open_sealed_keyring,
    "tpm": lambda bench: bench.tpm.keyring,
}
SOCS: Final[Mapping[str, Opener[ports.Soc]]] = {
    "sim": _open_sim_soc,
    "none": lambda _bench: NoSoc(),
}
OFFERED: Final[Mapping[str, Mapping[str, Opener[Any]]]] = {
    "soc": SOCS,
    "attest": ATTESTERS,
    "seal": SEALERS,
    "keys": KEYRINGS,
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
        yield ports.Board(
            soc=soc_part,
            attester=attester,
            sealer=sealer,
            keyring=keyring,
            chosen={"soc": soc, "attest": attest, "seal": seal, "keys": keys},
            activator=bench.tpm.activator if attest == "tpm" else None,
            # Certified under the AK, which means nothing where another attester signs.
            key_prover=bench.tpm.key_prover if attest == keys == "tpm" else None,
        )


def open_part(bench: Bench, sort: str, name: str) -> Any:
    """The one part of this sort and name. Raises as `open_board` does; HardwareAbsent when this board has none."""
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
