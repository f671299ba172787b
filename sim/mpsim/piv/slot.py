"""A reader without PC/SC: hands the commands to a card in this process. For tests that need no service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.errors import HardwareAbsent, HardwareGone
from mpsim.piv import memory
from mpsim.piv.applet import Removed, SoftCard

Transmit = Callable[[list[int]], tuple[list[int], int, int]]


class CardSlot:
    """One reader; `card` is the folder of the card in it, or None."""

    def __init__(self, card: Path | None, *, plugged: bool = True) -> None:
        self.card = card
        self.plugged = plugged
        self.said: list[bytes] = []
        """Every command that reached a card."""
        self.left_unlocked = 0
        """How many more times the card is found with its PIN given, as another program may leave it."""

    @contextmanager
    def hold(self) -> Iterator[Transmit]:
        """The card, reset before it and after, as an exclusive connection of PC/SC gives it."""
        if not self.plugged:
            raise HardwareAbsent("there is no card reader")
        if self.card is None:
            raise HardwareGone("there is no card in the reader")
        card = SoftCard(self.card)
        if self.left_unlocked:
            self.left_unlocked -= 1
            card.answer(b"\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08")
            card.answer(b"\x00\x20\x00\x80\x08" + memory.load(self.card).pin)

        def transmit(apdu: list[int]) -> tuple[list[int], int, int]:
            self.said.append(bytes(apdu))
            try:
                return card.transmit(apdu)
            except Removed:
                self.card = None
                raise HardwareGone("the card was taken out") from None

        yield transmit
