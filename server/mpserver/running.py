"""`mpserver run`: open the state, listen, say so, and stop cleanly on SIGTERM or SIGINT."""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.server.embed import Server

from mpissuer.enrollment import write_refusal
from mpserver.answering import make_answer, make_issuer
from mpserver.errors import AddressTaken, StateBroke
from mpserver.face import Face
from mpserver.images import FOLDER as IMAGES
from mpserver.keystore import TLS
from mpserver.log import Log
from mpserver.service import Service, deliver
from mpserver.state import State, open_ledger
from mpserver.store.writer import Writer

BACKLOG: Final = 4_096
"""Connections the kernel holds for us: a whole line switched on at once."""
BACKPRESSURE: Final = 20_000
"""Open connections; granian stops answering beyond it. Idle ones cost some 11 KiB each (measured)."""
HEADER_DEADLINE_MS: Final = 10_000
"""Ends silent connections, dripped headers and idle keep-alive."""
GC_OBJECTS: Final = 20_000
"""Objects made between two young collections: some twenty messages' worth."""
STOP_WAIT_S: Final = 15.0
"""For what is being answered when told to stop: a body's deadline and a slow commit."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: any free one."""

    host: str
    port: int


def run(state: State, address: Address, ready_file: Path | None) -> None:
    """Serve until told to stop. Raises AddressTaken, StateBroke; leaves nothing half done."""
    log = Log()
    allow_connections()
    port = take_port(address)
    writing = open_ledger(state.places)
    writer = Writer(state.make_sequencer(writing), deliver)
    asking, booking = (make_issuer(state.authority, state.clock, one) for one in (state.connection, writing))
    service = Service(make_answer(asking, booking), write_refusal, writer, log)
    settle_memory()
    writer.start()
    try:
        face = Face(service.handle, state.places.directory / IMAGES)
        asyncio.run(_serve(face, state, Address(address.host, port), ready_file, log))
    finally:
        writer.stop()
        writing.close()
    log.say("stopped", batches=writer.batches, orders=writer.orders)


def allow_connections() -> None:
    """As many files as the system lets us: a soft limit of 1,024 would be used up by a line of idle boards."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = BACKPRESSURE + 1_024
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard))


def settle_memory() -> None:
    """What is loaded by now stays: the collector need not walk it again for every few hundred objects of a message."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 50)


def take_port(address: Address) -> int:
    """The port to use. Raises AddressTaken.

    granian shares its port by SO_REUSEPORT, so a second server would start and take half of the boards: we look first.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = "in use" if in_use else error.strerror
        then = "stop what listens there or name another --port" if in_use else "name an address of this machine, --host"
        raise AddressTaken(f"cannot listen on {address.host}:{address.port}: {why}; {then}") from error


async def _serve(face: Face, state: State, address: Address, ready_file: Path | None, log: Log) -> None:
    logging.getLogger("_granian").disabled = True  # it warns that its embedded server is young; our log is our own
    server = Server(
        face,
        address=address.host,
        port=address.port,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_DEADLINE_MS),
        log_enabled=False,
        ssl_cert=state.keystore.path / f"{TLS}.crt",
        ssl_key=state.keystore.key_file(TLS),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve())
    await _wait_until_up(address, serving)
    _announce(address, ready_file, log)
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({told, serving}, return_when=asyncio.FIRST_COMPLETED)
    log.say("stopping", at_work=face.at_work)
    server.stop()  # type: ignore[no-untyped-call]  # granian annotates its constructor only
    try:
        await asyncio.wait_for(serving, STOP_WAIT_S)
    except TimeoutError:
        log.say("stop-forced", at_work=face.at_work)


async def _wait_until_up(address: Address, serving: "asyncio.Task[None]") -> None:
    """Until a connection is taken. Raises AddressTaken when the server ends before."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    while True:
        if serving.done():
            raise AddressTaken(f"the listener on {address.host}:{address.port} ended: {serving.exception()}")
        try:
            _, writer = await asyncio.open_connection(host, address.port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return


def _announce(address: Address, ready_file: Path | None, log: Log) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"https://{host}:{address.port}"
    log.say("listening", address=url)
    try:
        if sys.stdout is not None:
            os.write(sys.stdout.fileno(), f"listening on {url}\n".encode())
    except OSError as error:
        log.say("output-lost", error=str(error.strerror))  # the log has the address, and boards wait
    if ready_file is None:
        return
    try:
        temporary = ready_file.with_name(ready_file.name + ".new")
        temporary.write_text(url + "\n", encoding="utf-8")
        temporary.rename(ready_file)
    except OSError as error:
        raise StateBroke(f"cannot write {ready_file}: {error.strerror}") from error
