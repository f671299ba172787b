"""mpwire.tpm2: only MpError leaves it; a structure read and written again is the same bytes."""

from tests.fuzz.drive import run

run("tpm2")
