"""The closed list of backends. What the image names opens, or the agent stops: there is no fallback and no registry."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mpagent.errors import ConfigWrong
from mpagent.hal import ports

if TYPE_CHECKING:
    from mpagent.hal.tpm import TpmParts

_SIM_MODULE: Final = "mpsim.backend"
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class BoardChoice:
    """Which backend does what, as anchors.toml says."""

    attest: str
    seal: str
    keys: str
    soc: str
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


class _Bench:
    """Opens each chip at the first part that wants it, once, and closes it with the board."""

    def __init__(self, choice: BoardChoice, root: Path, shelf: ports.Shelf, stack: ExitStack) -> None:
        self._choice = choice
        self._root = root
        self._stack = stack
        self.shelf: Final = shelf

    @cached_property
    def tpm(self) -> "TpmParts":
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
    def sealer(self) -> ports.Sealer:
        return _pick("seal", self._choice.seal, SEALERS)(self)


def _open_sim_attester(bench: _Bench) -> ports.Attester:
    attester: ports.Attester = bench.open_sim("open_attester")
    return attester


def _open_sim_sealer(bench: _Bench) -> ports.Sealer:
    sealer: ports.Sealer = bench.open_sim("open_sealer")
    return sealer


def _open_sim_soc(bench: _Bench) -> ports.Soc:
    soc: ports.Soc = bench.open_sim("open_soc")
    return soc


def _open_sealed_keyring(bench: _Bench) -> ports.Keyring:
    from mpagent.hal.software import SealedKeyring  # `status` and --version read this module for its names only

    return SealedKeyring(bench.sealer, bench.shelf)


ATTESTERS: Final[Mapping[str, Callable[[_Bench], ports.Attester]]] = {
    "sim": _open_sim_attester,
    "tpm": lambda bench: bench.tpm.attester,
}
SEALERS: Final[Mapping[str, Callable[[_Bench], ports.Sealer]]] = {
    "sim": _open_sim_sealer,
    "tpm": lambda bench: bench.tpm.sealer,
}
KEYRINGS: Final[Mapping[str, Callable[[_Bench], ports.Keyring]]] = {
    "sealed": _open_sealed_keyring,
    "tpm": lambda bench: bench.tpm.keyring,
}
SOCS: Final[Mapping[str, Callable[[_Bench], ports.Soc]]] = {
    "sim": _open_sim_soc,
    "none": lambda _bench: NoSoc(),
}


@contextmanager
def open_board(choice: BoardChoice, root: Path, shelf: ports.Shelf) -> Iterator[ports.Board]:
    """The board of this choice; its chips are closed with the block. `root` is "/" on a device.

    Raises ConfigWrong for a name that is not in the list or a part that needs more than the choice says.
    """
    with ExitStack() as stack:
        bench = _Bench(choice, root, shelf, stack)
        attests_by_tpm = choice.attest == "tpm"
        yield ports.Board(
            soc=_pick("soc", choice.soc, SOCS)(bench),
            attester=_pick("attest", choice.attest, ATTESTERS)(bench),
            sealer=bench.sealer,
            keyring=_pick("keys", choice.keys, KEYRINGS)(bench),
            activator=bench.tpm.activator if attests_by_tpm else None,
            # Certified under the AK, which means nothing where another attester signs.
            key_prover=bench.tpm.key_prover if attests_by_tpm and choice.keys == "tpm" else None,
        )


def _pick(key: str, name: str, offered: Mapping[str, Part]) -> Part:
    if name not in offered:
        raise ConfigWrong(f"{key} = {name!r} is not one of: {', '.join(sorted(offered))}")
    return offered[name]
