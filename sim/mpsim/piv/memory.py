"""What a virtual PIV card remembers without power: keys, data objects, PIN and tries, in a folder."""

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mpsim import storage
from mpwire.errors import MpError, Retry
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

DEFAULT_PIN: Final = "123456"
TRIES_MAX: Final = 3
MANAGEMENT_KEY: Final = bytes.fromhex("010203040506070801020304050607080102030405060708")[:16]
"""AES-128; the first half of the key that cards commonly leave their maker with."""
CERTIFICATE_OF: Final = {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B}
"""Data object of each key's certificate (SP 800-73-4 Part 1 Table 3)."""
CHUID: Final = 0x5FC102
CAPABILITIES: Final = 0x5FC107
_PADDING: Final = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
"""An extension that says nothing, to make a certificate as long as some issuers make theirs."""
_STATE: Final = "card.json"
_BEGINS = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_ENDS = datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC)


class CardRefused(MpError):
    """This card cannot be made here; nothing was written."""

    exit_code: ClassVar[int] = 73
    retry: ClassVar[Retry] = Retry.OPERATOR


@dataclass
class Memory:
    """The content of one card."""

    pin: bytes
    tries: int
    keys: dict[int, SoftKey] = field(default_factory=dict)
    objects: dict[int, bytes] = field(default_factory=dict)


class CardAuthority:
    """Who issues cards: a root of P-256 that certifies what is on them."""

    def __init__(self, title: str = "card issuer", padding_bytes: int = 0) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        authority = x509.BasicConstraints(ca=True, path_length=0)
        usage = _usage(key_cert_sign=True)
        padding = [x509.UnrecognizedExtension(_PADDING, bytes(padding_bytes))] if padding_bytes else []
        self.root = self._build(self._name, self._key.public_key(), authority, usage, *padding)

    @property
    def pem(self) -> str:
        """The root, for a product's list of roots."""
        return self.root.public_bytes(Encoding.PEM).decode()

    def certify(self, point: bytes, title: str, *, signs: bool = True) -> bytes:
        """DER of a leaf for this key."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        usage = _usage(digital_signature=True) if signs else _usage(key_agreement=True)
        leaf = self._build(name, key, x509.BasicConstraints(ca=False, path_length=None), usage)
        return leaf.public_bytes(Encoding.DER)

    def _build(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        basic: x509.BasicConstraints,
        usage: x509.KeyUsage,
        *padding: x509.UnrecognizedExtension,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self._name, name, key, x509.random_serial_number(), _BEGINS, _ENDS)
        builder = builder.add_extension(basic, critical=True).add_extension(usage, critical=True)
        for extension in padding:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _usage(
    *, digital_signature: bool = False, key_agreement: bool = False, key_cert_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_card(
    folder: Path, authority: CardAuthority, *, pin: str = DEFAULT_PIN, slots: Iterable[int] = CERTIFICATE_OF
) -> None:
    """A card as its issuer hands it out: keys and certificates in these slots. Raises CardRefused where one lies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CardRefused(f"cannot make {folder}: {error.strerror}") from error
    if any(folder.iterdir()):
        raise CardRefused(f"{folder} is there already and not empty")
    guid = os.urandom(16)
    memory = Memory(pin.encode().ljust(8, b"\xff"), TRIES_MAX, objects={CHUID: _chuid(guid), CAPABILITIES: _ccc(guid)})
    for slot in slots:
        key = SoftKey.generate()
        memory.keys[slot] = key
        certificate = authority.certify(key.public_key(), f"card {guid.hex()[:8]} {slot:02X}", signs=slot != 0x9D)
        memory.objects[CERTIFICATE_OF[slot]] = pack_certificate(certificate)
    save(folder, memory)


def load(folder: Path) -> Memory:
    """Raises BoardBroke where no card lies."""
    state = storage.get_json(folder / _STATE)
    return Memory(
        pin=bytes.fromhex(state["pin"]),
        tries=state["tries"],
        keys={int(slot, 16): SoftKey.from_scalar(Secret(bytes.fromhex(key))) for slot, key in state["keys"].items()},
        objects={int(tag, 16): bytes.fromhex(held) for tag, held in state["objects"].items()},
    )


def save(folder: Path, memory: Memory) -> None:
    """Durable: a card does not forget a wrong PIN when its power is cut."""
    state = {
        "pin": memory.pin.hex(),
        "tries": memory.tries,
        "keys": {f"{slot:02x}": key.to_scalar().reveal().hex() for slot, key in memory.keys.items()},
        "objects": {f"{tag:06x}": held.hex() for tag, held in memory.objects.items()},
    }
    storage.put_json(folder / _STATE, state)


def pack_certificate(certificate: bytes, info: int = 0) -> bytes:
    """What the data object of a certificate holds (SP 800-73-4 Part 1 Appendix A)."""
    return tlv(0x70, certificate) + tlv(0x71, bytes([info])) + tlv(0xFE, b"")


def tlv(tag: int, value: bytes) -> bytes:
    """BER-TLV with the shortest length and a tag of as many bytes as its number has."""
    size = len(value)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    )
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + length + value


def _chuid(guid: bytes) -> bytes:
    """FASC-N of a card without one, GUID, expiry, no signature (as cards outside the US government have it)."""
    fasc_n = bytes.fromhex("d4e739da739ced39ce739da1685a1082108ce73984108251e8")[:25]
    return tlv(0x30, fasc_n) + tlv(0x34, guid) + tlv(0x35, b"20500101") + tlv(0x3E, b"") + tlv(0xFE, b"")


def _ccc(guid: bytes) -> bytes:
    """Card capability container, version 2.1, with nothing in it but the card's id."""
    head = tlv(0xF0, bytes.fromhex("a000000116ff02") + guid[:14]) + tlv(0xF1, b"\x21") + tlv(0xF2, b"\x21")
    empty = [0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE]
    return head + b"".join(tlv(tag, b"\x00" if tag == 0xF4 else b"\x10" if tag == 0xF5 else b"") for tag in empty)
