"""mpwire.codec.decode: only MpError leaves it, and what it takes has one spelling: encode gives the same bytes."""

from tests.fuzz.drive import run

run("codec")
