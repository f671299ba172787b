"""The parts an issuer works with, put together by whoever runs it."""

from collections.abc import Callable
from dataclasses import dataclass

from mpissuer.ports import Authority, Catalogue, Clock, Ledger


@dataclass(frozen=True, slots=True)
class Issuer:
    """Everything an answer may need."""

    authority: Authority
    catalogue: Catalogue
    ledger: Ledger
    clock: Clock
    random: Callable[[int], bytes]
