"""mpserver.scan: an image from anywhere; every walk ends by itself, and what it says can be printed."""

from tests.fuzz.drive import run

run("scan")
