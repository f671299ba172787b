"""In the guest: `writer.py write [loose]` counts on the disk until the power is cut, `writer.py read` tells how far.

Each number is on the disk before it is on the console: temporary file, file sync, rename, folder sync. `loose` leaves
the syncs out.
"""

import os
import sys
from pathlib import Path

FOLDER = Path("/run/disk")


def write(synced: bool) -> None:
    with open("/dev/console", "w") as console:
        for number in range(1_000_000):
            with open(FOLDER / "number.new", "w") as file:
                file.write(f"{number}\n")
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            os.rename(FOLDER / "number.new", FOLDER / "number")
            if synced:
                sync_folder()
            print(f"BENCH-NUMBER {number}", file=console, flush=True)


def sync_folder() -> None:
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read() -> None:
    file = FOLDER / "number"
    print(file.read_text().strip() or -1 if file.exists() else -1)


if sys.argv[1] == "write":
    write(synced=sys.argv[2:] != ["loose"])
else:
    read()
