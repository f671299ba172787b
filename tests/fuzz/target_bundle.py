"""A bundle and a receipts file off any medium: only MpError leaves their readers, nothing unsigned opens."""

from tests.fuzz.drive import run

run("bundle")
