"""mpwire.inspection: only MpError leaves it, and what it prints holds no character that could steer a terminal."""

from tests.fuzz.drive import run

run("inspection")
