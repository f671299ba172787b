"""The parts an issuer works with, put together by whoever runs it."""

from collections.abc import Callable
from typing import NamedTuple

from mpissuer.ports import Authority, Catalogue, Clock, Ledger


class Issuer(NamedTuple):
    """Everything an answer may need."""

    authority: Authority
    catalogue: Catalogue
    ledger: Ledger
    clock: Clock
    random: Callable[[int], bytes]
