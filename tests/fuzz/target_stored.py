"""Record and vault as they lie on disk: only MpError leaves their readers, and each has one spelling."""

from tests.fuzz.drive import run

run("stored")
