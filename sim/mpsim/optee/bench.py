"""One board's emulated OP-TEE on the bench: build the shim, serve the chip, change the scenario.

The programs under test are started with `environment()`; they see /dev/tee0 and nothing else of this.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from mpsim import board
from mpsim.optee.applications import SIGN
from mpsim.optee.attestation import reflash_storage
from mpsim.optee.scenario import Fault, Scenario, write_scenario
from mpsim.optee.serve import Server
from mpsim.optee.world import PSEUDO_TAS
from mpwire.errors import MpError, Retry

SOURCE: Final = Path(__file__).with_name("shim.c")
COMPILER: Final = ("gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared")


class ShimBroke(MpError):
    """The shim cannot be built here."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


def build_shim(folder: Path, source: Path = SOURCE) -> Path:
    """The shared object, built at most once for one source and put there whole. Raises ShimBroke."""
    key = hashlib.sha256(source.read_bytes() + " ".join(COMPILER).encode()).hexdigest()[:16]
    target = folder / f"tee-shim-{key}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{target.name}.{os.getpid()}"
    try:
        done = subprocess.run([*COMPILER, "-o", str(fresh), str(source), "-ldl"], capture_output=True, check=False)
    except FileNotFoundError as missing:
        raise ShimBroke("gcc is not installed") from missing
    if done.returncode:
        raise ShimBroke("the shim does not compile", detail=done.stderr.decode(errors="replace"))
    os.replace(fresh, target)
    return target


class EmulatedTee:
    """The TEE of the board in `folder` (of mpsim.board), served while the block runs.

    `shim_folder` keeps the compiled shim between runs.
    """

    def __init__(self, folder: Path, shim_folder: Path) -> None:
        self._board = folder
        self._shim_folder = shim_folder
        # Beside the board the path would often be too long for a socket.
        self._sockets = Path(tempfile.mkdtemp(prefix="mptee-"))
        self.scenario = Scenario()

    @property
    def chip(self) -> Path:
        """For mpsim.backend, where another part of this board is simulated as a port."""
        return self._board / "chip"

    def environment(self) -> dict[str, str]:
        """For the program under test: the shim, and where it asks. The product reads neither."""
        return {"LD_PRELOAD": str(build_shim(self._shim_folder)), "MPSIM_TEE_SOCKET": str(self._socket)}

    def change(self, **fields: Any) -> None:
        """Set these fields of the scenario, from the next request on; the others stay."""
        self.scenario = replace(self.scenario, **fields)
        write_scenario(self._sockets / "scenario.json", self.scenario)

    def break_next(self, result: str, *, call: str = "invoke", times: int | None = 1, **where: Any) -> None:
        """The next calls are answered with this result instead (scenario.Fault)."""
        self.change(faults=(*self.scenario.faults, Fault(call, result, times=times, **where)))

    def count_signatures(self) -> int:
        """Signing commands that reached OP-TEE in all boots, pseudo-TA or a TA in front, whatever came of them."""
        others = [uuid for name, uuid in PSEUDO_TAS.items() if name != "mp"]
        return sum(command == SIGN and uuid not in others for uuid, command in self.server.commands)

    def power_cycle(self) -> None:
        """The plug is pulled and put back: boot latches the fuses, the secure world starts anew."""
        board.power_cycle(self.chip)
        self.server.power_cycle()

    def reflash(self) -> None:
        """An image goes over the secure storage, with the power cycle that follows."""
        reflash_storage(self.chip)
        self.power_cycle()

    def __enter__(self) -> Self:
        self.server = Server(self.chip, self._socket, self._sockets / "scenario.json")
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)
        if kind is None and self.server.broke:
            raise ShimBroke("the emulated TEE itself failed") from self.server.broke[0]

    @property
    def _socket(self) -> Path:
        return self._sockets / "tee"
