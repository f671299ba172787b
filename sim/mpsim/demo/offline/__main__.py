"""python -m mpsim.demo.offline --out DIR: exit code 0 only when every line came out as said."""

import argparse
import sys
from collections.abc import Sequence

from mpsim.demo.offline.story import tell
from mpsim.demo.stage import play


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as in stage.play."""
    text = "No network: three boards take one bundle, others are refused, and receipts tell the rest."
    return play(argparse.ArgumentParser(prog="python -m mpsim.demo.offline", description=text), arguments, tell)


if __name__ == "__main__":
    sys.exit(main())
