"""The PIV card application of a virtual card (SP 800-73-4 Part 2): P-256 alone, one PIN, one AES management key.

A card is a stranger's program to us: this one shares no line with the backend that speaks to it, and OpenSC's tools
take it for a card as well.
"""

import os
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpsim.piv import accidents, memory
from mpsim.piv.accidents import Accident
from mpsim.piv.memory import CERTIFICATE_OF, MANAGEMENT_KEY, TRIES_MAX, Memory, tlv
from mpwire.errors import Malformed
from mpwire.p256 import SoftKey

ATR: Final = bytes.fromhex("3bfd1300008131fe158073c021c057597562694b657940")
"""A YubiKey 5's: OpenSC 0.23 registers elliptic curves for PIV cards that it knows by their ATR alone."""
SLOW_S: Final = 1.0
_AID: Final = bytes.fromhex("A000000308000010000100")
_AID_SHORTEST: Final = 5
_ANSWER_MAX_BYTES: Final = 256
_PIN, _MANAGEMENT = 0x80, 0x9B
_DIGITAL_SIGNATURE: Final = 0x9C
_P256, _AES128 = 0x11, 0x08
_DISCOVERY: Final = tlv(0x4F, _AID) + tlv(0x5F2F, b"\x40\x00")
"""SP 800-73-4 Part 1 section 3.3.2: the application's PIN, and no global one."""


class Removed(Exception):
    """The card left the reader in the middle of a command."""


class Refusal(Exception):
    """The status word with which the card refuses."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}")
        self.status = status


class SoftCard:
    """One card with its power on. Everything but what `memory` holds is forgotten at `reset`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.reset()

    def reset(self) -> None:
        """Power off and on, or the reader's reset: no application chosen, no PIN given."""
        self._selected = False
        self._pin_given = False
        self._pin_fresh = False
        self._managed = False
        self._challenge = b""
        self._chained = b""
        self._waiting = b""
        self._endless = False

    def transmit(self, apdu: list[int]) -> tuple[list[int], int, int]:
        """One command as a reader gives it. Raises Removed."""
        said = self.answer(bytes(apdu))
        return list(said[:-2]), said[-2], said[-1]

    def answer(self, apdu: bytes) -> bytes:
        """The same in bytes: the answer with its status word. Raises Removed."""
        accident = accidents.take(self._folder, apdu[1]) if len(apdu) > 1 else Accident.NONE
        if accident is Accident.REMOVE:
            raise Removed
        if accident is Accident.SLOW:
            time.sleep(SLOW_S)
        try:
            if accident is Accident.REFUSE:
                raise Refusal(0x6F00)
            if accident is Accident.WRONG_LE:
                raise Refusal(0x6C00)
            body = self._hear(apdu)
        except Refusal as refusal:
            return refusal.status.to_bytes(2, "big")
        if accident is Accident.GARBAGE:
            body = b"\x53\x50" + b"\xff" * 40
        if accident is Accident.FLIP:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        self._endless = self._endless or accident is Accident.ENDLESS
        return self._send(body)

    def _send(self, body: bytes) -> bytes:
        if self._endless:
            return bytes(_ANSWER_MAX_BYTES) + b"\x61\x00"
        self._waiting = body[_ANSWER_MAX_BYTES:]
        more = min(len(self._waiting), 0xFF) if self._waiting else 0
        return body[:_ANSWER_MAX_BYTES] + (bytes([0x61, more]) if more else b"\x90\x00")

    def _hear(self, apdu: bytes) -> bytes:
        """Chaining and the choice of the application; then the commands of PIV."""
        if len(apdu) < 4:
            raise Refusal(0x6700)
        chained, instruction, p1, p2 = apdu[0] & 0x10, *apdu[1:4]
        if apdu[0] & ~0x10:
            raise Refusal(0x6E00)
        if instruction == 0xC0:
            return self._waiting
        self._chained += _read_body(apdu)
        if chained:
            return b""
        body, self._chained = self._chained, b""
        fresh, self._pin_fresh = self._pin_fresh, False
        if instruction == 0xA4:
            return self._select(body)
        if not self._selected:
            raise Refusal(0x6D00)
        if instruction == 0x87:
            return self._authenticate(p1, p2, body, fresh)
        commands = {0x20: self._verify, 0xCB: self._get, 0xDB: self._put, 0x47: self._generate}
        if instruction not in commands:
            raise Refusal(0x6D00)
        return commands[instruction](p1, p2, body)

    def _select(self, name: bytes) -> bytes:
        if len(name) < _AID_SHORTEST or not _AID.startswith(name):
            self._selected = False
            raise Refusal(0x6A82)
        self._selected = True
        return tlv(0x61, tlv(0x4F, _AID[5:]) + tlv(0x79, tlv(0x4F, _AID[:5])))

    def _verify(self, p1: int, p2: int, body: bytes) -> bytes:
        card = self._remember()
        if p2 != _PIN or p1 not in (0x00, 0xFF):
            raise Refusal(0x6A88)
        if p1 == 0xFF:
            self._pin_given = False
            return b""
        if not body and self._pin_given:
            return b""
        if not body and card.tries:
            raise Refusal(0x63C0 | card.tries)
        if not card.tries:
            raise Refusal(0x6983)
        if len(body) != 8:
            raise Refusal(0x6A80)
        self._pin_given = self._pin_fresh = body == card.pin
        card.tries = TRIES_MAX if self._pin_given else card.tries - 1
        memory.save(self._folder, card)
        if not self._pin_given:
            raise Refusal(0x63C0 | card.tries)
        return b""

    def _get(self, _p1: int, _p2: int, body: bytes) -> bytes:
        tag = int.from_bytes(_read_tlv(body).get(0x5C, b""), "big")
        if tag == 0x7E:
            return tlv(0x7E, _DISCOVERY)
        held = self._remember().objects.get(tag)
        if held is None:
            raise Refusal(0x6A82)
        return tlv(0x53, held)

    def _put(self, _p1: int, _p2: int, body: bytes) -> bytes:
        if not self._managed:
            raise Refusal(0x6982)
        fields, card = _read_tlv(body), self._remember()
        if fields.keys() != {0x5C, 0x53}:
            raise Refusal(0x6A80)
        card.objects[int.from_bytes(fields[0x5C], "big")] = fields[0x53]
        memory.save(self._folder, card)
        return b""

    def _generate(self, _p1: int, slot: int, body: bytes) -> bytes:
        if not self._managed:
            raise Refusal(0x6982)
        if slot not in CERTIFICATE_OF or _read_tlv(_read_tlv(body).get(0xAC, b"")).get(0x80) != bytes([_P256]):
            raise Refusal(0x6A80)
        card = self._remember()
        card.keys[slot] = SoftKey.generate()
        memory.save(self._folder, card)
        return tlv(0x7F49, tlv(0x86, card.keys[slot].public_key()))

    def _authenticate(self, algorithm: int, slot: int, body: bytes, fresh: bool) -> bytes:
        fields = _read_tlv(_read_tlv(body).get(0x7C, b""))
        if slot == _MANAGEMENT and algorithm == _AES128:
            return self._manage(fields)
        key = self._remember().keys.get(slot)
        if key is None or algorithm != _P256:
            raise Refusal(0x6A80)
        if not (fresh if slot == _DIGITAL_SIGNATURE else self._pin_given):
            raise Refusal(0x6982)
        if fields.get(0x82) == b"" and 0x81 in fields:
            return tlv(0x7C, tlv(0x82, _sign(key, fields[0x81])))
        if fields.get(0x82) == b"" and 0x85 in fields:
            return tlv(0x7C, tlv(0x82, _agree(key, fields[0x85])))
        raise Refusal(0x6A80)

    def _manage(self, fields: dict[int, bytes]) -> bytes:
        """External authentication: the card's challenge, enciphered by who knows the management key."""
        if fields.get(0x81) == b"":
            self._challenge = os.urandom(16)
            return tlv(0x7C, tlv(0x81, self._challenge))
        cipher = Cipher(algorithms.AES(MANAGEMENT_KEY), modes.ECB()).encryptor()
        expected, self._challenge = cipher.update(self._challenge), b""
        if not expected or fields.get(0x82) != expected:
            raise Refusal(0x6982)
        self._managed = True
        return b""

    def _remember(self) -> Memory:
        return memory.load(self._folder)


def _read_body(apdu: bytes) -> bytes:
    """The data of a short command; a lone fifth byte is Le."""
    if len(apdu) <= 5:
        return b""
    size = apdu[4]
    if len(apdu) not in (5 + size, 6 + size):
        raise Refusal(0x6700)
    return apdu[5 : 5 + size]


def _read_tlv(raw: bytes) -> dict[int, bytes]:
    """Fields by tag, at one depth."""
    fields = {}
    while raw:
        width = 2 if raw[0] & 0x1F == 0x1F else 1
        tag, raw = int.from_bytes(raw[:width], "big"), raw[width:]
        many = raw[0] & 0x7F if raw and raw[0] & 0x80 else 0
        if not raw or many > 2 or len(raw) < 1 + many:
            raise Refusal(0x6A80)
        size = int.from_bytes(raw[1 : 1 + many], "big") if many else raw[0]
        fields[tag], raw = raw[1 + many : 1 + many + size], raw[1 + many + size :]
        if len(fields[tag]) != size:
            raise Refusal(0x6A80)
    return fields


def _sign(key: SoftKey, digest: bytes) -> bytes:
    if len(digest) != 32:
        raise Refusal(0x6A80)
    raw = key.sign_digest(digest)
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def _agree(key: SoftKey, peer: bytes) -> bytes:
    try:
        return key.ecdh(peer).reveal()
    except Malformed:
        raise Refusal(0x6A80) from None
