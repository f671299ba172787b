"""A process full of devices: `python load.py PLAN COUNT THREADS`, all made before the first one speaks.

Says "ready", waits for a line, then each thread takes a device, opens a TLS 1.3 connection of its own and lives the
three round trips on it. Prints one JSON object: how many ended well, how long it took, what failed.
"""

import hashlib
import http.client
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exchange import Exchange, Maker

from mpwire import registry
from mpwire.limits import PROOF_MAX_BYTES
from mpwire.messages.plain import PROOF

HEADERS: Final = {"Content-Type": registry.CONTENT_TYPE, "Accept": registry.CONTENT_TYPE, "User-Agent": "mpagent"}


class Crowd:
    """The devices of this process."""

    def __init__(self, plan: dict[str, str], count: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_verify_locations(cadata=plan["tls_root"])
        self._port = int(plan["port"])
        root, key = bytes.fromhex(plan["root"]), bytes.fromhex(plan["grant_key"])
        slots = tuple((name, kind) for name, kind in json.loads(plan["slots"]))
        maker = Maker(Path(plan["chip"]), root, key, slots)
        self._waiting = [maker.make() for _ in range(count)]
        self._talk = self._enroll if plan["talk"] == "enroll" else self._chat
        self.done = 0
        self.failures: list[str] = []
        self.latencies: list[float] = []

    def work(self) -> None:
        """One thread: device after device, until none is left."""
        while True:
            try:
                device = self._waiting.pop()
            except IndexError:
                return
            start = time.monotonic()
            try:
                self._connect(device)
            except Exception as error:
                self.failures.append(repr(error)[:200])
            else:
                self.done += 1
                self.latencies.append(time.monotonic() - start)

    def _connect(self, device: Exchange) -> None:
        line = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
        try:
            self._talk(device, lambda body: _ask(line, body))
        finally:
            line.close()

    @staticmethod
    def _enroll(device: Exchange, ask: Callable[[bytes], bytes]) -> None:
        proof = device.prove(ask(device.hello))
        grant = ask(proof)
        evidence = PROOF.decode(proof, PROOF_MAX_BYTES).evidence
        device.end(ask(device.take(hashlib.sha256(evidence).digest(), grant)))

    @staticmethod
    def _chat(device: Exchange, ask: Callable[[bytes], bytes]) -> None:
        """As many bytes as an enrollment, to a server that does nothing."""
        for body in (device.hello, b"\xa0\x00\x03" + bytes(1_600), b"\xd2" + bytes(500)):
            ask(body)


def _ask(line: http.client.HTTPSConnection, body: bytes) -> bytes:
    line.request("POST", registry.PATH, body, HEADERS)
    answer = line.getresponse()
    heard = answer.read()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {heard[:80]!r}")
    return heard


def main() -> None:
    """Make, wait, run, tell."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    crowd = Crowd(plan, int(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=crowd.work) for _ in range(int(sys.argv[3]))]
    start = time.monotonic()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    result = {"done": crowd.done, "seconds": time.monotonic() - start, "failures": crowd.failures[:5]}
    print(json.dumps({**result, "latencies": crowd.latencies}))


if __name__ == "__main__":
    main()
