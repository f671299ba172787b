"""mpwire.evidence: only MpError leaves it; an MPMR has 32 bytes, a quote at most 24 registers, claims one spelling."""

from tests.fuzz.drive import run

run("evidence")
