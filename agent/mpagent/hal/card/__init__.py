"""The backend `card`: a PIV card (SP 800-73-4) as attester and keyring, over PC/SC (pyscard, imported late)."""

from pathlib import Path
from typing import NamedTuple

from mpagent.hal.card.attest import CardAttester
from mpagent.hal.card.keys import CardKeyring
from mpagent.hal.card.pin import Pin
from mpagent.hal.card.reader import PcscReader, Reader
from mpagent.hal.card.token import Token
from mpagent.hal.ports import Keyring, Shelf

__all__ = ["CardChoice", "CardParts", "open_card", "open_parts"]


class CardChoice(NamedTuple):
    """Which card, and where its PIN lies."""

    pin_file: Path
    """A credential: 6 to 8 characters on one line, out of every other user's reach."""
    reader: str = ""
    """Part of the reader's name as PC/SC lists it; "" where one reader holds a card."""
    chain_file: Path | None = None
    """PEM: who issued the certificate of 9A, and who issued that, without the root the server pins."""


class CardParts(NamedTuple):
    """What one card offers. Nothing stays open between two uses of the card, so there is nothing to close."""

    token: Token
    attester: CardAttester
    keyring: CardKeyring


def open_card(choice: CardChoice, shelf: Shelf, others: Keyring | None = None) -> CardParts:
    """The PIV card in a reader of this machine. `others` keeps the keys that a card has no slot for.

    Reads the certificate of 9A and gives no PIN yet. Raises HardwareAbsent: no PC/SC service or no such reader.
    HardwareGone: a reader without a card, or a card without PIV or without that certificate. HardwareBusy: another
    program holds the card. ConfigWrong: several cards could be meant, or pyscard is missing.
    """
    return open_parts(PcscReader(choice.reader), choice, shelf, others)


def open_parts(reader: Reader, choice: CardChoice, shelf: Shelf, others: Keyring | None = None) -> CardParts:
    """The same over any Reader."""
    token = Token(reader, Pin(choice.pin_file))
    attester = CardAttester(token, choice.chain_file)
    attester.describe()
    return CardParts(token, attester, CardKeyring(token, shelf, others))
