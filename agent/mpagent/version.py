"""The version of this agent: it goes into every Proof."""

from typing import Final

VERSION: Final = "0.1.0"
"""tests/mpagent compares it with the wheel's; reading the wheel's metadata at run time costs 15 ms."""
