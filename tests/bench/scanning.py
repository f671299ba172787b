"""Part 8 of the bench: `mpserver scan-image` over raw data, beside ripgrep and grep with the very same marks.

Target: 150 MiB/s of one core, from the start of the command to its end, and at most 64 MiB more memory than a scan of
an empty file takes. The peers only search; our command also opens what it meets, in a process of its own. Each round
takes every contestant once; CPU seconds count, of all processes a command starts.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from boards import meter
from figures import Figure, median, table, write_report

from mpserver.scan.filters import Sought
from mpserver.scan.marks import make_automaton

TARGET_MIB_S: Final = 150.0
TARGET_MEMORY_MIB: Final = 64.0
SIZE_MIB: Final = 384
ROUNDS: Final = 3
MIB: Final = 1024 * 1024
KEY: Final = bytes.fromhex(
    "0139c932f04525d083e15e3236dd1dca625b2d0b14c13ba7faa9c50c16619ce0"
    "f4c207aa609e4aae586df7fee72f829f3b59cbf49f8f34c34eca39ebd58e73ce"
)
"""NXP's published example."""
SOURCES: Final = (Path(sys.base_prefix) / "lib", Path("/usr/lib"), Path("/usr/bin"))


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes scan.json."""
    image, empty, key, marks = (scratch / name for name in ("image", "empty", "key", "marks"))
    make_image(image)
    empty.touch()
    key.write_bytes(KEY)
    marks.write_bytes(make_automaton((Sought(bytes(16), KEY[:5]),)).pattern + b"\n")
    ours = [sys.executable, "-m", "mpserver", "scan-image", "--key-file", str(key)]
    contestants = {
        "mpserver scan-image": [*ours, str(image)],
        "ripgrep": ["rg", "--no-config", "-j1", "-U", "-a", "--no-unicode", "-c", "-f", str(marks), str(image)],
        "grep -P": ["grep", "-c", "-a", "-P", "-f", str(marks), str(image)],
    }
    missing = [name for name, command in contestants.items() if shutil.which(command[0]) is None]
    seconds: dict[str, list[float]] = {name: [] for name in contestants if name not in missing}
    memory: list[float] = []
    for _ in range(1 + ROUNDS):  # the first warms the page cache and is dropped
        for name, spent in seconds.items():
            found = run(contestants[name])
            spent.append(found["cpu_s"])
            if name == "mpserver scan-image":
                memory.append(found["peak_mib"] - run([*ours, str(empty)])["peak_mib"])
    speeds = {name: SIZE_MIB / median(spent[1:]) for name, spent in seconds.items()}
    return report(out, speeds, max(memory), missing)


def make_image(path: Path) -> None:
    """Programs and libraries of this machine, then noise: what a root file system is before it is packed."""
    with path.open("wb") as image:
        for body in read_sources():
            image.write(body[: SIZE_MIB // 2 * MIB - image.tell()])
            if image.tell() >= SIZE_MIB // 2 * MIB:
                break
        while image.tell() < SIZE_MIB * MIB:
            image.write(os.urandom(min(MIB, SIZE_MIB * MIB - image.tell())))


def read_sources() -> Sequence[bytes]:
    """Files with machine code, in order of their names; the compressed and the sources are left out."""
    bodies = []
    left = SIZE_MIB // 2 * MIB
    for folder in SOURCES:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_file() and not path.is_symlink() and left > 0:
                body = path.read_bytes()
                if body[:4] == b"\x7fELF":
                    bodies.append(body)
                    left -= len(body)
    return bodies


def run(command: Sequence[str]) -> dict[str, float]:
    """CPU seconds and peak memory of a command and its children; it may end with 1 or 77, for what it found."""
    found: dict[str, float] = meter(*command, ok=(0, 1, 77))
    return found


def report(out: Path, speeds: dict[str, float], memory: float, missing: Sequence[str]) -> list[Figure]:
    """What is printed and kept."""
    ours = speeds["mpserver scan-image"]
    rows: list[list[object]] = [["searching raw data", "MiB/s of one core", "ours against it"]]
    rows += [[name, speed, ours / speed] for name, speed in speeds.items()]
    print(f"Scan of {SIZE_MIB} MiB, from start to end of the command\n{table(rows)}")
    for name in missing:
        print(f"{name}: not installed, not measured")
    print(f"memory of the scan beyond one of an empty file: {memory:.1f} MiB\n")
    figures = [
        Figure("scan of raw data", "MiB/s", TARGET_MIB_S, ours, at_most=False),
        Figure("memory of a scan, beyond idle", "MiB", TARGET_MEMORY_MIB, max(memory, 0.1), at_most=True),
    ]
    write_report(out / "scan.json", figures, {"speeds_mib_s": speeds, "missing": list(missing)})
    return figures
