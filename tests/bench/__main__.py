"""`make bench`: speed and size of server, device and sealing; one JSON file a part and one table at the end.

It measures and asserts nothing: a missed target is printed as MISSED and the exit code stays 0.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import bundling
import credential
import enrolling
import probing
import receiving
import scanning
import sealing
import serving
import signing
from figures import describe_machine, summary

PARTS = {
    "server": serving.measure,
    "device": enrolling.measure,
    "sealing": sealing.measure,
    "probe": probing.measure,
    "credential": credential.measure,
    "receipts": receiving.measure,
    "signing": signing.measure,
    "scan": scanning.measure,
    "bundle": bundling.measure,
}


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--only", choices=sorted(PARTS), help="one part alone")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    figures, start = [], time.monotonic()
    print(f"load average {describe_machine()['load_average'][0]:.1f} on {describe_machine()['cores']} cores\n")
    for name, measure in PARTS.items():
        if arguments.only in (None, name):
            scratch = out / f"scratch-{name}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            figures += measure(out, scratch)
            shutil.rmtree(scratch)
    if figures:
        print(summary(figures))
    print(f"{time.monotonic() - start:.0f} s; JSON in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
