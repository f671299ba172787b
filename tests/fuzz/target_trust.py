"""mpwire.trust, also behind right signatures: only MpError leaves it; an epoch never falls, no root is lost."""

from tests.fuzz.drive import run

run("trust")
