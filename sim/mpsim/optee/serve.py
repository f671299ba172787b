"""The server behind shim.c: `python -m mpsim.optee.serve BOARD SOCKET [SCENARIO]`, or a thread of the test.

Packets (SOCK_SEQPACKET), all little-endian. A connection from a named socket is an open file: its one packet asks for
open, and it then stays until the file is closed. Any other connection carries one ioctl: number, context name (8
bytes), argument. An answer is the ioctl's result or minus errno, then the argument as it comes back; a descriptor
travels beside it.
"""

import argparse
import errno
import os
import select
import socket
import struct
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final
from uuid import UUID

from mpsim.optee.kernel import INVOKE, OPEN_SESSION, Answer, Caller, Errno, Kernel
from mpsim.optee.world import Gone, World

PACKET_MAX_BYTES: Final = 12 + 1024
CONTEXT_BYTES: Final = 8
BACKLOG: Final = 64


class Server:
    """OP-TEE and kernel of one board for as many programs as ask."""

    def __init__(self, chip: Path, path: Path, scenario: Path) -> None:
        self._chip, self._scenario = chip, scenario
        self.commands: list[tuple[UUID, int]] = []
        """Every command that reached an application, in all boots: what a test counts signatures by."""
        self.kernel = Kernel(World(chip, scenario, self.commands))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen(BACKLOG)
        self._answered: list[int] = []
        self.broke: list[Exception] = []
        """What went wrong here, which is never the program's fault."""

    def start(self) -> None:
        """Serve from a thread until `stop`."""
        Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Until `stop`; each connection has its thread, because any call may block."""
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:  # stopped
                return
            Thread(target=self._hear, args=(connection, bytes(peer or b"")), daemon=True).start()

    def stop(self) -> None:
        """Nobody is served any more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def answered(self, name: str) -> list[int]:
        """The ioctls of this name that were answered so far, for a test that asks what the device was asked."""
        number = {"open": OPEN_SESSION, "invoke": INVOKE}[name]
        return [one for one in self._answered if one == number]

    def power_cycle(self) -> None:
        """Another boot: every open file, session and key in memory is gone."""
        self.kernel = Kernel(World(self._chip, self._scenario, self.commands))

    def _hear(self, connection: socket.socket, peer: bytes) -> None:
        with connection:
            packet = connection.recv(PACKET_MAX_BYTES)
            if len(packet) < 4 + CONTEXT_BYTES:
                return
            if peer:
                self._hold_open(connection, peer[1:].ljust(CONTEXT_BYTES, b"\0"))
            else:
                self._answer(connection, packet)

    def _hold_open(self, connection: socket.socket, name: bytes) -> None:
        kernel = self.kernel
        try:
            kernel.open(name)
        except Errno as refused:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(struct.pack("<i", -refused.number))
            return
        try:
            connection.send(struct.pack("<i", 0))
            connection.recv(1)  # ends when the last descriptor is closed
        except (BrokenPipeError, ConnectionResetError):
            return  # it was killed meanwhile
        finally:
            kernel.release(name)

    def _answer(self, connection: socket.socket, packet: bytes) -> None:
        (number,) = struct.unpack_from("<I", packet)
        name, body = packet[4 : 4 + CONTEXT_BYTES], packet[4 + CONTEXT_BYTES :]
        caller = Caller(_process_of(connection), lambda: _is_gone(connection))
        result, answer = 0, Answer()
        try:
            answer = self.kernel.call(number, name, body, caller)
        except Errno as refused:
            result = -refused.number
        except Gone:
            return
        except Exception as fault:  # the program hears an error; the test hears of ours at the end
            traceback.print_exception(fault)
            self.broke.append(fault)
            result = -errno.EIO
        self._answered.append(number)
        beside = [] if answer.descriptor is None else [answer.descriptor]
        try:
            socket.send_fds(connection, [struct.pack("<i", result) + answer.body], beside)
        except OSError:
            return  # who asked died meanwhile


def _process_of(connection: socket.socket) -> int:
    """Who connected; a thread's call counts as its process's."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", raw)[0])


def _is_gone(connection: socket.socket) -> bool:
    """The other end was closed, by its process's end if by nothing else."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        prog="mpsim.optee.serve", description="The kernel and OP-TEE of a simulated board."
    )
    parser.add_argument("board", type=Path, help="folder of the board")
    parser.add_argument("socket", type=Path, help="for MPSIM_TEE_SOCKET")
    parser.add_argument("scenario", type=Path, nargs="?", help="JSON; beside the socket as scenario.json if not named")
    options = parser.parse_args()
    scenario = options.scenario or options.socket.with_name("scenario.json")
    server = Server(options.board / "chip", options.socket, scenario)
    print(f"serving {options.board} as process {os.getpid()}", flush=True)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
