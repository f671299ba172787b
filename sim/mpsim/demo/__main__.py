"""python -m mpsim.demo --out DIR: exit code 0 only when every line came out as said."""

import argparse
import sys
from collections.abc import Sequence

from mpsim.demo.stage import play
from mpsim.demo.story import tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as in stage.play."""
    parser = argparse.ArgumentParser(prog="python -m mpsim.demo", description="One server, four boards, seven attacks.")
    return play(parser, arguments, tell)


if __name__ == "__main__":
    sys.exit(main())
