"""A PKCS#11 module in front of SoftHSM2 that behaves as tokens do which SoftHSM2 is not (awkward_token.c)."""

import subprocess
from pathlib import Path

from mpsim.softhsm import MODULE

SOURCE = Path(__file__).with_name("awkward_token.c")


def build_module(folder: Path) -> Path:
    """The trait is named by the variable AWKWARD; every login is counted in the file that AWKWARD_LOG names."""
    built = folder / "libawkward.so"
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f'-DSOFTHSM="{MODULE}"']
    subprocess.run(["gcc", *options, "-o", str(built), str(SOURCE), "-ldl"], check=True)
    return built
