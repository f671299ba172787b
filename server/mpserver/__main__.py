"""python -m mpserver."""

from mpserver.cli import main

raise SystemExit(main())
