"""Every process the demo starts, each with its log, and none left behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, Timer
from typing import IO, Any, Final

from mpsim.demo.expecting import NotAsSaid
from mpsim.demo.stopping import Stops

COMMAND_MAX_S: Final = 30.0
"""One command, on a machine that is busy with other things as well."""
STOP_MAX_S: Final = 20.0
"""A server that is told to stop finishes what it answers first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one command ended."""

    code: int
    output: bytes
    log: Path

    def read_json(self, line: str) -> Any:
        """Its standard output. Raises NotAsSaid where that is no JSON."""
        try:
            return json.loads(self.output)
        except ValueError:
            raise NotAsSaid(line, "JSON on standard output", f"exit code {self.code}", self.log) from None


class Children:
    """Starts programs that lie beside this interpreter, as `make setup` installed them."""

    def __init__(self, logs: Path, stops: Stops) -> None:
        self.logs = logs
        self._stops = stops
        self._alive: list[subprocess.Popen[bytes]] = []

    def run(self, log: str, *command: str, hear: Callable[[str], None] | None = None, silent: bool = False) -> Outcome:
        """Run to the end. `hear` is told each line of standard error; `silent` keeps standard output out of the log."""
        path = self.logs / f"{log}.log"
        with open(path, "ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            process = self._start(command, subprocess.PIPE, subprocess.PIPE)
            output = self._listen(process, file, hear)
            if not silent:
                file.write(output)
            file.write(f"exit code {process.returncode}\n".encode())
        return Outcome(process.returncode, output, path)

    def start(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        """Start and leave running until `stop` or `close`."""
        with open(self.logs / f"{log}.log", "ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            return self._start(command, file, file)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Ask it to end, then make it; its exit code. Nothing when it ended already."""
        process.terminate()
        try:
            process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process in self._alive:
            self._alive.remove(process)
        return process.returncode

    def close(self) -> None:
        """All that still run, the last one first."""
        while self._alive:
            self.stop(self._alive[-1])

    def _start(
        self, command: tuple[str, ...], output: int | IO[bytes], errors: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        program = Path(sys.executable).with_name(command[0])
        with self._stops.hold():
            process = subprocess.Popen(
                [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=errors, bufsize=0
            )
            self._alive.append(process)
        return process

    def _listen(self, process: subprocess.Popen[bytes], log: IO[bytes], hear: Callable[[str], None] | None) -> bytes:
        """Standard output, once both streams ended. A command that takes too long is killed: its exit code tells."""
        assert process.stdout is not None and process.stderr is not None  # _start was given pipes
        output: list[bytes] = []
        reader = Thread(target=_collect, args=(process.stdout, output), daemon=True)
        watch = Timer(COMMAND_MAX_S, process.kill)
        watch.daemon = True
        try:
            reader.start()
            watch.start()
            for line in process.stderr:
                log.write(line)
                if hear is not None:
                    hear(line.decode(errors="replace").rstrip())
            process.wait()
            reader.join()
        finally:
            watch.cancel()
        self._alive.remove(process)
        process.stdout.close()
        process.stderr.close()
        return b"".join(output)


def _collect(stream: IO[bytes], into: list[bytes]) -> None:
    while piece := stream.read(65_536):
        into.append(piece)
