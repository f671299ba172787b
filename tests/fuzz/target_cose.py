"""Envelopes and COSE_Keys: only MpError leaves them; what is taken, joined again, is the same bytes."""

from tests.fuzz.drive import run

run("cose")
