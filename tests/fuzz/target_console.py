"""mpserver.console: a pasted log from anywhere; only LogWrong leaves it, and it makes no key that is not in the log."""

from tests.fuzz.drive import run

run("console")
