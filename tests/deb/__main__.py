"""Builds packages: `python -m tests.deb mpagent|all FOLDER`."""

import sys
from pathlib import Path

from tests.deb.building import build

for package in build(sys.argv[1], Path(sys.argv[2])):
    print(package)
