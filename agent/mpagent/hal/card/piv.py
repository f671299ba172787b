"""The PIV card application (SP 800-73-4 Part 2), as far as a device uses it: certificates, PIN, keys."""

import zlib
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mpagent.errors import HardwareGone
from mpagent.hal.card import faults, tlv
from mpagent.hal.card.apdu import SUCCESS, Answer, Command, Transmit, exchange
from mpwire import p256
from mpwire.errors import Malformed
from mpwire.secret import Secret

CERTIFICATE_MAX_BYTES: Final = 4_096
"""What Hello carries (wire.md 4.1); SP 800-73-4 Part 1 Table 7 wants at least 1856."""
P256: Final = 0x11
"""Algorithm ECC P-256 (SP 800-78-4 Table 6-2)."""
PIN_REFERENCE: Final = 0x80
"""The PIV card application's own PIN, never the card's global one (SP 800-73-4 Part 2 section 3.2.1)."""
_APPLICATION: Final = bytes.fromhex("A00000030800001000")
"""AID without its version (SP 800-73-4 Part 1 section 2.2)."""
_SELECT, _VERIFY, _GET_DATA, _GENERAL_AUTHENTICATE = 0xA4, 0x20, 0xCB, 0x87
_TAG_APPLICATION, _TAG_OBJECT, _TAG_LIST, _TAG_TEMPLATE = 0x61, 0x53, 0x5C, 0x7C
_TAG_CERTIFICATE, _TAG_INFO, _TAG_MSCUID, _TAG_ERROR_DETECTION = 0x70, 0x71, 0x72, 0xFE
_TAG_CHALLENGE, _TAG_RESPONSE, _TAG_EXPONENTIATION = 0x81, 0x82, 0x85
_PLAIN, _GZIPPED = b"\x00", b"\x01"
_GZIP_WINDOW: Final = 31
"""zlib's own number for a gzip frame around a window of 2^15 bytes."""
Part = TypeVar("Part")


class Slot(Enum):
    """A PIV key and its certificate (SP 800-73-4 Part 1 Tables 3 and 4b): (reference, data object)."""

    AUTHENTICATION = (0x9A, 0x5FC105)
    SIGNATURE = (0x9C, 0x5FC10A)
    KEY_MANAGEMENT = (0x9D, 0x5FC10B)

    @property
    def reference(self) -> int:
        return self.value[0]

    @property
    def title(self) -> str:
        """As documents and tools write it: "9A"."""
        return f"{self.reference:02X}"


class Applet:
    """The application of one card, for as long as nobody else may touch the card."""

    def __init__(self, transmit: Transmit) -> None:
        self._transmit = transmit

    def select(self) -> None:
        """Raises HardwareGone for a card without PIV."""
        answer = self._ask(Command(_SELECT, 0x04, 0x00, _APPLICATION))
        if answer.status == faults.NOT_FOUND:
            raise HardwareGone("the card has no PIV application", advice="put a PIV card into this reader")
        body = _expect(answer, "selecting PIV")
        _read("its application template", lambda: tlv.read_only(body, _TAG_APPLICATION))

    def read_certificate(self, slot: Slot) -> bytes:
        """DER, of at most CERTIFICATE_MAX_BYTES. Needs no PIN. Raises HardwareGone where there is none."""
        doing = f"reading the certificate of {slot.title}"
        wanted = tlv.write(_TAG_LIST, slot.value[1].to_bytes(3, "big"))
        answer = self._ask(Command(_GET_DATA, 0x3F, 0xFF, wanted))
        if answer.status == faults.NOT_FOUND:
            raise HardwareGone(
                f"the card has no certificate in slot {slot.title}",
                advice="let the card's issuer make that key on the card and certify it",
            )
        body = _expect(answer, doing)
        return _read(f"the certificate of {slot.title}", lambda: _unpack(body))

    def count_tries(self) -> int | None:
        """How many wrong PINs the card still takes; None while the PIN counts as given. Costs no try."""
        return self._tries(self._ask(Command(_VERIFY, 0x00, PIN_REFERENCE, answers=False)))

    def verify(self, padded: Secret) -> int | None:
        """Give the PIN, 8 bytes padded with FF: None when it is right, else how many tries are left now."""
        return self._tries(self._ask(Command(_VERIFY, 0x00, PIN_REFERENCE, padded.reveal(), answers=False)))

    def sign(self, slot: Slot, digest: bytes) -> bytes:
        """ECDSA over a SHA-256 digest: r || s, 64 bytes. Nothing yet says that the right key made it."""
        template = tlv.write(_TAG_RESPONSE, b"") + tlv.write(_TAG_CHALLENGE, digest)
        answer = self._authenticate(slot, template, "signing")
        return _read("the signature", lambda: _read_signature(answer))

    def exponentiate(self, slot: Slot, peer: bytes) -> Secret:
        """P-256 Diffie-Hellman with a point that the caller has checked: X, 32 bytes."""
        template = tlv.write(_TAG_RESPONSE, b"") + tlv.write(_TAG_EXPONENTIATION, peer)
        shared = self._authenticate(slot, template, "agreeing on a secret")
        if len(shared) != p256.SCALAR_BYTES:
            raise HardwareGone(f"the card's shared secret has {len(shared)} bytes, not {p256.SCALAR_BYTES}")
        return Secret(shared)

    def _authenticate(self, slot: Slot, template: bytes, doing: str) -> bytes:
        """GENERAL AUTHENTICATE (SP 800-73-4 Part 2 section 3.2.4): what the response field holds."""
        body = tlv.write(_TAG_TEMPLATE, template)
        answer = _expect(self._ask(Command(_GENERAL_AUTHENTICATE, P256, slot.reference, body)), doing)
        return _read("its answer", lambda: tlv.read_only(tlv.read_only(answer, _TAG_TEMPLATE), _TAG_RESPONSE))

    def _tries(self, answer: Answer) -> int | None:
        if answer.status == SUCCESS:
            return None
        if answer.status == faults.BLOCKED:
            return 0
        if answer.status & 0xFFF0 == 0x63C0:
            return answer.status & 0x0F
        raise HardwareGone(
            f"the card does not say how many tries its PIN has left ({faults.name_status(answer.status)})",
            advice="use a card that follows SP 800-73-4: without that count a wrong PIN file would block it",
        )

    def _ask(self, command: Command) -> Answer:
        return exchange(self._transmit, command)


def _expect(answer: Answer, doing: str) -> bytes:
    if answer.status != SUCCESS:
        raise faults.explain_status(answer.status, doing)
    return answer.body


def _read(what: str, parse: Callable[[], Part]) -> Part:
    """What `parse` makes of the card's bytes. Nothing on a card is authenticated: nonsense has to end here."""
    try:
        return parse()
    except Malformed as error:
        raise HardwareGone(
            f"the card's answer is damaged: {what}",
            detail=str(error),
            advice="read the card with pkcs15-tool; let its issuer write it anew",
        ) from error


def _unpack(answer: bytes) -> bytes:
    """The certificate of a data object (SP 800-73-4 Part 1 Appendix A, Table 10)."""
    fields = tlv.read_fields(tlv.read_only(answer, _TAG_OBJECT))
    if fields.keys() - {_TAG_MSCUID, _TAG_ERROR_DETECTION} != {_TAG_CERTIFICATE, _TAG_INFO}:
        raise Malformed("card-certificate-fields")
    held, info = fields[_TAG_CERTIFICATE], fields[_TAG_INFO]
    if info not in (_PLAIN, _GZIPPED):
        raise Malformed("card-certificate-info")
    certificate = _gunzip(held) if info == _GZIPPED else held
    if not 0 < len(certificate) <= CERTIFICATE_MAX_BYTES:
        raise Malformed("card-certificate-size")
    return certificate


def _gunzip(packed: bytes) -> bytes:
    """Stops one byte above the bound: a small object could otherwise unpack to gigabytes."""
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = stream.decompress(packed, CERTIFICATE_MAX_BYTES + 1)
    except zlib.error as error:
        raise Malformed("card-certificate-gzip") from error
    if not stream.eof or stream.unused_data:
        raise Malformed("card-certificate-gzip")
    return plain


def _read_signature(der: bytes) -> bytes:
    """r || s of a DER ECDSA-Sig-Value (RFC 3279 section 2.2.3)."""
    try:
        r, s = decode_dss_signature(der)
    except ValueError as error:
        raise Malformed("card-signature") from error
    if not (0 < r < p256.ORDER and 0 < s < p256.ORDER):
        raise Malformed("card-signature")
    return r.to_bytes(p256.SCALAR_BYTES, "big") + s.to_bytes(p256.SCALAR_BYTES, "big")
