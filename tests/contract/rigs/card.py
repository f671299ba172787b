"""A simulated i.MX8M with a virtual PIV card: over an injected transport, and over a real PC/SC service."""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

from cryptography import x509

from mpagent.hal import ports
from mpagent.hal.card import CardChoice, open_parts
from mpagent.hal.card.reader import PcscReader, Reader
from mpagent.hal.software import SealedKeyring
from mpsim import backend
from mpsim.board import BoardPlan, make_board, power_cycle
from mpsim.piv.memory import DEFAULT_PIN, CardAuthority, make_card
from mpsim.piv.service import READERS, CardService
from mpsim.piv.slot import CardSlot
from mpsim.shelf import MemoryShelf
from mpwire import p256
from mpwire.ueid import name_card_key

AUTHORITY = CardAuthority()
NOTICED_MAX_S = 10.0


class CardRig:
    """A board whose attester and enrollment keys are on a card; its other keys are sealed by the chip."""

    def __init__(self, folder: Path, reader: Reader) -> None:
        make_board(folder / "board", BoardPlan(closed=True))
        self._chip = folder / "board" / "chip"
        self._reader = reader
        self._pin_file = write_pin(folder / "pin")
        self.shelf = MemoryShelf()

    @contextmanager
    def _open(self, shelf: MemoryShelf) -> Iterator[ports.Board]:
        sealer = backend.open_sealer(self._chip)
        parts = open_parts(self._reader, CardChoice(self._pin_file), shelf, SealedKeyring(sealer, shelf))
        yield ports.Board(backend.open_soc(self._chip), parts.attester, sealer, parts.keyring)

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        return self._open(self.shelf if shelf is None else shelf)

    def power_cycle(self) -> None:
        power_cycle(self._chip)

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        assert material.public_key is not None and len(name_card_key(material.public_key)) == 32
        leaf = x509.load_der_x509_certificate(material.x5chain[0])
        leaf.verify_directly_issued_by(AUTHORITY.root)
        p256.verify(material.public_key, message, attestation.signature)


def write_pin(path: Path, pin: str = DEFAULT_PIN) -> Path:
    """A credential file as systemd lays it out."""
    path.write_text(pin + "\n")
    path.chmod(0o400)
    return path


@contextmanager
def make_card_board(folder: Path) -> Iterator[CardRig]:
    """No service between us and the card."""
    make_card(folder / "card", AUTHORITY)
    yield CardRig(folder, CardSlot(folder / "card"))


@cache
def find_service() -> CardService:
    """This process's one PC/SC service: libpcsclite reads the name of its socket once."""
    service = CardService()
    atexit.register(service.stop)
    service.start()
    os.environ["PCSCLITE_CSOCK_NAME"] = str(service.socket)
    return service


def is_there(reader: str) -> bool:
    """Whether PC/SC says that a card is in this reader."""
    from smartcard import scard  # the other kinds of boards do without

    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    try:
        _, states = scard.SCardGetStatusChange(context, 0, [(reader, scard.SCARD_STATE_UNAWARE)])
        return bool(states[0][1] & scard.SCARD_STATE_PRESENT)
    finally:
        scard.SCardReleaseContext(context)


def wait_until(reader: str, *, there: bool) -> None:
    """pcscd looks into its readers every 0.4 s."""
    deadline = time.monotonic() + NOTICED_MAX_S
    while is_there(reader) is not there:
        assert time.monotonic() < deadline, f"pcscd did not notice that the card in {reader} is there: {there}"
        time.sleep(0.02)


@contextmanager
def inserted(card: Path, reader: str) -> Iterator[CardService]:
    """The card in a reader of this process's service; taken out at the end, if nobody did before."""
    service = find_service()
    service.insert(card, reader)
    try:
        wait_until(reader, there=True)
        yield service
    finally:
        service.remove(reader)
        wait_until(reader, there=False)


@contextmanager
def make_pcsc_board(folder: Path) -> Iterator[CardRig]:
    """pcscd and pyscard between us and the card. Two such boards fit in, as many as vpcd has slots."""
    make_card(folder / "card", AUTHORITY)
    find_service()
    reader = next(name for name in READERS if not is_there(name))
    with inserted(folder / "card", reader):
        yield CardRig(folder, PcscReader(reader))
