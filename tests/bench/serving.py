"""Part 1 of the bench: full enrollments a second of server CPU, beside what the machine's own parts allow."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from figures import Figure, cpu_seconds_of, median, table, write_report
from issuer import SLOTS, Anchors, Running, make_state

HERE: Final = Path(__file__).parent
PROCESSES: Final = 2
THREADS: Final = 12
"""In each process: 24 connections at once, so that commits are shared as on a line that was switched on."""
ROUNDS: Final = 4
DEVICES: Final = 1_200
"""In a round: some two seconds of server CPU, two hundred ticks of the clock it is read from."""
BARE_DEVICES: Final = 1_200
TARGET_PER_CPU_SECOND: Final = 900.0
TARGET_OF_ALLOWED: Final = 0.70


@dataclass(frozen=True, slots=True)
class Round:
    """What one crowd did to one server."""

    done: int
    cpu_us: float
    """Of the server's process, per device."""
    per_second: float
    """By the clock on the wall: the clients share the machine."""
    latency_ms: float
    failures: list[str]


class Crowds:
    """Starts the same crowd again and again."""

    def __init__(self, scratch: Path, anchors: Anchors) -> None:
        self._scratch, self._anchors = scratch, anchors

    def visit(self, server: Running, talk: str, devices: int) -> Round:
        """`devices` boards, half of them from each process; all are made before the clock starts."""
        crowds = [self._make(server, talk, number, devices // PROCESSES) for number in range(PROCESSES)]
        before = cpu_seconds_of(server.process.pid)
        for one in crowds:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        told = [json.loads(one.communicate()[0]) for one in crowds]
        spent = cpu_seconds_of(server.process.pid) - before
        done = sum(one["done"] for one in told)
        latencies = [latency for one in told for latency in one["latencies"]]
        failures = [text for one in told for text in one["failures"]]
        if not done:
            raise RuntimeError(f"no board enrolled: {failures}")
        seconds = max(one["seconds"] for one in told)
        return Round(done, spent / done * 1e6, done / seconds, median(latencies) * 1e3, failures)

    def _make(self, server: Running, talk: str, number: int, devices: int) -> "subprocess.Popen[str]":
        anchors = self._anchors
        plan = {
            "port": server.port,
            "talk": talk,
            "root": anchors.root.hex(),
            "grant_key": anchors.grant_key.hex(),
            "tls_root": anchors.tls_root,
            "slots": json.dumps(SLOTS),
            "chip": str(self._scratch / f"chip-{number}"),
        }
        file = self._scratch / f"plan-{number}.json"
        file.write_text(json.dumps(plan), encoding="utf-8")
        command = [sys.executable, str(HERE / "load.py"), str(file), str(devices), str(THREADS)]
        crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert crowd.stdout is not None
        if crowd.stdout.readline() != "ready\n":
            raise RuntimeError("a crowd did not come")
        return crowd


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Runs everything, prints the parts, writes server.json."""
    anchors = make_state(scratch / "issuer")
    crowds = Crowds(scratch, anchors)
    real, bare = Running("serve", scratch / "issuer"), Running("bare", scratch / "issuer")
    try:
        try:
            enrolled, chatted = _measure_servers(crowds, real, bare)
        finally:
            told = real.stop()
        batch = max(1, round(told["orders"] / told["batches"]))
        in_turn = _measure_in_turn(scratch, batch, lambda: crowds.visit(bare, "chat", BARE_DEVICES))
    finally:
        bare.stop()
    handshake = {"TLS 1.3 handshake and 3 requests": median([one.cpu_us for one in chatted])}
    apart = {**handshake, **_read_parts(_start_parts(scratch, batch, "apart"))}
    return _report(out, enrolled, {**handshake, **in_turn}, apart, told)


def _measure_servers(crowds: Crowds, real: Running, bare: Running) -> tuple[list[Round], list[Round]]:
    """Round after round, so that whatever else the machine does is shared fairly."""
    crowds.visit(real, "enroll", 100)
    crowds.visit(bare, "chat", 100)
    enrolled, chatted = [], []
    for _ in range(ROUNDS):
        enrolled.append(crowds.visit(real, "enroll", DEVICES))
        chatted.append(crowds.visit(bare, "chat", BARE_DEVICES))
    return enrolled, chatted


def _measure_in_turn(scratch: Path, batch: int, come: Callable[[], object]) -> dict[str, float]:
    """The parts as the server meets them: one after the other, while the same crowd is on the machine all the time."""
    parts = _start_parts(scratch, batch, "in-turn")
    while parts.poll() is None:
        come()
    return _read_parts(parts)


def _start_parts(scratch: Path, batch: int, way: str) -> "subprocess.Popen[str]":
    state = scratch / f"parts-{way}"
    make_state(state)
    command = [sys.executable, str(HERE / "parts.py"), str(state), str(scratch / f"chip-{way}"), str(batch), way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _read_parts(started: "subprocess.Popen[str]") -> dict[str, float]:
    said, _ = started.communicate()
    if started.returncode:
        raise RuntimeError("the machine's parts could not be measured")
    parts: dict[str, float] = json.loads(said)
    return parts


def _report(
    out: Path, enrolled: list[Round], parts: dict[str, float], apart: dict[str, float], told: dict[str, Any]
) -> list[Figure]:
    allowed_us, measured_us = sum(parts.values()), median([one.cpu_us for one in enrolled])
    rate, allowed = 1e6 / measured_us, 1e6 / allowed_us
    figures = [
        Figure("enrollments per server CPU-second", "1/s", TARGET_PER_CPU_SECOND, rate, at_most=False),
        Figure("of what the machine's parts allow", "share", TARGET_OF_ALLOWED, rate / allowed, at_most=False),
    ]
    rows: list[tuple[object, ...]] = [("one enrollment on the server, us of CPU", "in turn", "apart")]
    rows += [(name, spent, apart[name]) for name, spent in parts.items()]
    rows += [("sum of the machine's parts", allowed_us, sum(apart.values())), ("measured", measured_us, None)]
    rows += [("our own code and what is between", measured_us - allowed_us, None)]
    print(table(rows))
    print(
        "in turn: each part once an enrollment, with the server's crowd of clients on the machine; this is what is\n"
        "compared, for the server has no other conditions. apart: each part in a hot loop, the best of five.\n"
        f"{1e6 / measured_us:.0f} enrollments a CPU-second of {allowed:.0f} allowed; by the wall clock "
        f"{median([one.per_second for one in enrolled]):.0f}/s with the clients on the same cores, "
        f"{told['orders'] / told['batches']:.1f} orders a commit\n"
    )
    details = {
        "parts_us": parts,
        "parts_apart_us": apart,
        "allowed_per_cpu_second": allowed,
        "allowed_apart_per_cpu_second": 1e6 / sum(apart.values()),
        "rounds": [{name: getattr(one, name) for name in Round.__slots__} for one in enrolled],
        "connections": PROCESSES * THREADS,
        "orders_per_commit": told["orders"] / told["batches"],
    }
    write_report(out / "server.json", figures, details)
    return figures
