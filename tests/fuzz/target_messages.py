"""Every table in mpwire.messages: only MpError leaves it, and a message read and written again is the same bytes."""

from tests.fuzz.drive import run

run("messages")
