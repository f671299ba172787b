"""What a run measured, beside what was wanted: one row a figure, JSON for machines and one table for people."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any, Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One target. `at_most` says which side of it is good."""

    name: str
    unit: str
    target: float
    measured: float
    at_most: bool

    @property
    def ratio(self) -> float:
        """1 is the target, more is better."""
        return self.target / self.measured if self.at_most else self.measured / self.target

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= 1.0


def table(rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[one if isinstance(one, str) else _number(one) for one in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for source, row in zip(rows, cells, strict=True):
        padded = (
            text.ljust(width) if isinstance(one, str) else text.rjust(width)
            for one, text, width in zip(source, row, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return "-" if value is None else str(value)


def summary(figures: Sequence[Figure]) -> str:
    """The table at the end: target, measured, ratio, met."""
    head: list[Sequence[object]] = [("figure", "unit", "target", "measured", "ratio", "met")]
    rows = [
        (one.name, one.unit, ("<= " if one.at_most else ">= ") + _number(one.target), one.measured, one.ratio,
         "yes" if one.met else "MISSED")
        for one in figures
    ]  # fmt: skip
    return table([*head, *rows])


def write_report(path: Path, figures: Sequence[Figure], details: dict[str, Any]) -> None:
    """One JSON file a part of the bench."""
    rows = [{**asdict(one), "ratio": round(one.ratio, 3), "met": one.met} for one in figures]
    report = {"machine": describe_machine(), "figures": rows, **details}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def cpu_seconds_of(process_id: int) -> float:
    """User and system time of a living process and all its threads, from /proc/PID/stat (proc(5))."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cost_of(act: Callable[[], object], seconds: float = 0.15, rounds: int = 5) -> float:
    """CPU seconds of one call: the best of some rounds, because whatever else runs here only adds."""
    act()
    found = []
    for _ in range(rounds):
        calls, start = 0, process_time()
        while (spent := process_time() - start) < seconds / rounds:
            act()
            calls += 1
        found.append(spent / calls)
    return min(found)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
