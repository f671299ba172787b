"""TPM 2.0 structures that travel as evidence, read and written exactly, and what a verifier checks in them.

Structure names and numbers: TPM 2.0 Library Part 2 (TCG, revision 1.59). Only what our profiles use is accepted:
P-256 and RSA-2048, SHA-256, AES-CFB, one SHA-256 PCR bank. Everything else is Malformed.
"""

import struct
from collections.abc import Sequence
from enum import IntFlag
from hashlib import sha256
from typing import Final, NamedTuple

from mpwire import p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.ueid import TPM_NAME_BYTES

ALG_RSA: Final = 0x0001
ALG_AES: Final = 0x0006
ALG_SHA256: Final = 0x000B
ALG_NULL: Final = 0x0010
ALG_ECDSA: Final = 0x0018
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043
CURVE_P256: Final = 0x0003
GENERATED: Final = 0xFF544347
"""TPM_GENERATED_VALUE: only a structure made inside a TPM starts so; a restricted key signs nothing else with it."""
ATTEST_CERTIFY: Final = 0x8017
ATTEST_QUOTE: Final = 0x8018
RSA_BYTES: Final = 256
PCR_SELECT_BYTES: Final = 3
"""sizeofSelect of a platform with 24 PCRs (PC Client profile)."""


class Attributes(IntFlag):
    """TPMA_OBJECT (section 8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


BORN_HERE: Final = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN
"""The TPM made the key itself and can never give it away."""
_KNOWN_ATTRIBUTES: Final = sum(Attributes)


class Public(NamedTuple):
    """TPMT_PUBLIC (section 12.2.4) with nameAlg SHA-256."""

    attributes: Attributes
    unique: bytes
    """ECC: the 65-byte point. RSA: the 256-byte modulus."""
    auth_policy: bytes = b""
    """Empty or 32 bytes."""
    symmetric_bits: int | None = None
    """Key size of AES-CFB that a storage key wraps with; None for TPM_ALG_NULL."""
    scheme: int = ALG_NULL
    """ALG_NULL, or ALG_ECDSA with SHA-256."""
    exponent: int = 0
    """RSA only; 0 stands for 65537, and both spellings have Names of their own."""

    @property
    def is_ecc(self) -> bool:
        """P-256, else RSA-2048."""
        return len(self.unique) == p256.POINT_BYTES


class Clock(NamedTuple):
    """TPMS_CLOCK_INFO (section 10.11.1)."""

    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool


class Quote(NamedTuple):
    """TPMS_QUOTE_INFO (section 10.12.1), one SHA-256 bank."""

    pcrs: tuple[int, ...]
    """Selected indices, rising."""
    pcr_digest: bytes


class Certify(NamedTuple):
    """TPMS_CERTIFY_INFO (section 10.12.3)."""

    name: bytes
    qualified_name: bytes


class Attest(NamedTuple):
    """TPMS_ATTEST (section 10.12.12) of a quote or a certification."""

    qualified_signer: bytes
    extra_data: bytes
    clock: Clock
    firmware_version: int
    attested: Quote | Certify


class _Reader:
    """Walks one structure; every read past the end is Malformed under the structure's rule name."""

    __slots__ = ("_at", "_raw", "_rule")

    def __init__(self, raw: bytes, rule: str) -> None:
        self._raw, self._rule, self._at = raw, rule, 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise Malformed(self._rule)
        taken, self._at = self._raw[self._at : end], end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, *sizes: int) -> bytes:
        """A TPM2B whose size must be one of `sizes`."""
        size = self.number(2)
        if size not in sizes:
            raise Malformed(self._rule)
        return self.take(size)

    def expect(self, size: int, *values: int) -> int:
        value = self.number(size)
        if value not in values:
            raise Malformed(self._rule)
        return value

    def end(self) -> None:
        if self._at != len(self._raw):
            raise Malformed(self._rule)


def read_public(raw: bytes) -> Public:
    """Raises Malformed("tpm-public") for anything but an exact TPMT_PUBLIC of our profiles, "p256-point" off curve."""
    reader = _Reader(raw, "tpm-public")
    kind = reader.expect(2, ALG_ECC, ALG_RSA)
    reader.expect(2, ALG_SHA256)
    attributes = reader.number(4)
    if attributes & ~_KNOWN_ATTRIBUTES:
        raise Malformed("tpm-public")
    auth_policy = reader.sized(0, 32)
    symmetric_bits = _read_symmetric(reader)
    if kind == ALG_ECC:
        scheme, exponent, unique = _read_ecc(reader)
    else:
        scheme, exponent, unique = _read_rsa(reader)
    reader.end()
    return Public(Attributes(attributes), unique, auth_policy, symmetric_bits, scheme, exponent)


def _read_symmetric(reader: _Reader) -> int | None:
    """TPMT_SYM_DEF_OBJECT (section 11.1.7)."""
    if reader.expect(2, ALG_NULL, ALG_AES) == ALG_NULL:
        return None
    bits = reader.expect(2, 128, 256)
    reader.expect(2, ALG_CFB)
    return bits


def _read_ecc(reader: _Reader) -> tuple[int, int, bytes]:
    """TPMS_ECC_PARMS (section 12.2.3.6) after the symmetric part, then TPMS_ECC_POINT, padded to the field size."""
    scheme = reader.expect(2, ALG_NULL, ALG_ECDSA)
    if scheme == ALG_ECDSA:
        reader.expect(2, ALG_SHA256)
    reader.expect(2, CURVE_P256)
    reader.expect(2, ALG_NULL)
    point = b"\x04" + reader.sized(32) + reader.sized(32)
    p256.load_point(point)
    return scheme, 0, point


def _read_rsa(reader: _Reader) -> tuple[int, int, bytes]:
    """TPMS_RSA_PARMS (section 12.2.3.5) after the symmetric part, then TPM2B_PUBLIC_KEY_RSA."""
    scheme = reader.expect(2, ALG_NULL)
    reader.expect(2, RSA_BYTES * 8)
    exponent = reader.expect(4, 0, 65537)
    modulus = reader.sized(RSA_BYTES)
    if modulus[0] < 0x80 or modulus[-1] & 1 == 0:  # not 2048 bits, or no product of two odd primes
        raise Malformed("tpm-public")
    return scheme, exponent, modulus


def write_public(public: Public) -> bytes:
    """TPMT_PUBLIC; `read_public` gives the same value back."""
    kind = ALG_ECC if public.is_ecc else ALG_RSA
    head = struct.pack(">HHI", kind, ALG_SHA256, public.attributes) + _write_sized(public.auth_policy)
    bits = public.symmetric_bits
    symmetric = struct.pack(">H", ALG_NULL) if bits is None else struct.pack(">HHH", ALG_AES, bits, ALG_CFB)
    scheme = struct.pack(">H", public.scheme)
    if not public.is_ecc:
        rest = struct.pack(">HI", RSA_BYTES * 8, public.exponent) + _write_sized(public.unique)
        return head + symmetric + scheme + rest
    if public.scheme == ALG_ECDSA:
        scheme += struct.pack(">H", ALG_SHA256)
    point = _write_sized(public.unique[1:33]) + _write_sized(public.unique[33:])
    return head + symmetric + scheme + struct.pack(">HH", CURVE_P256, ALG_NULL) + point


def _write_sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def make_name(public: bytes) -> bytes:
    """The Name of an object (Part 1 section 16): nameAlg || SHA-256(TPMT_PUBLIC), 34 bytes."""
    return struct.pack(">H", ALG_SHA256) + sha256(public).digest()


def read_attest(raw: bytes) -> Attest:
    """Raises Malformed("tpm-attest") for anything but an exact TPMS_ATTEST of a quote or a certification."""
    reader = _Reader(raw, "tpm-attest")
    reader.expect(4, GENERATED)
    kind = reader.expect(2, ATTEST_QUOTE, ATTEST_CERTIFY)
    signer = _read_name(reader)
    extra_data = reader.sized(*range(65))
    clock = Clock(reader.number(8), reader.number(4), reader.number(4), bool(reader.expect(1, 0, 1)))
    firmware_version = reader.number(8)
    attested = _read_quote(reader) if kind == ATTEST_QUOTE else Certify(_read_name(reader), _read_name(reader))
    reader.end()
    return Attest(signer, extra_data, clock, firmware_version, attested)


def _read_name(reader: _Reader) -> bytes:
    """TPM2B_NAME of an object with nameAlg SHA-256."""
    name = reader.sized(TPM_NAME_BYTES)
    if name[:2] != b"\x00\x0b":
        raise Malformed("tpm-attest")
    return name


def _read_quote(reader: _Reader) -> Quote:
    reader.expect(4, 1)
    reader.expect(2, ALG_SHA256)
    reader.expect(1, PCR_SELECT_BYTES)
    selected = int.from_bytes(reader.take(PCR_SELECT_BYTES), "little")
    pcrs = tuple(index for index in range(8 * PCR_SELECT_BYTES) if selected >> index & 1)
    return Quote(pcrs, reader.sized(32))


def write_attest(attest: Attest) -> bytes:
    """TPMS_ATTEST; `read_attest` gives the same value back."""
    body, attested = attest.clock, attest.attested
    if isinstance(attested, Quote):
        selected = sum(1 << index for index in attested.pcrs).to_bytes(PCR_SELECT_BYTES, "little")
        kind, tail = ATTEST_QUOTE, struct.pack(">IHB", 1, ALG_SHA256, PCR_SELECT_BYTES) + selected
        tail += _write_sized(attested.pcr_digest)
    else:
        kind, tail = ATTEST_CERTIFY, _write_sized(attested.name) + _write_sized(attested.qualified_name)
    return (
        struct.pack(">IH", GENERATED, kind)
        + _write_sized(attest.qualified_signer)
        + _write_sized(attest.extra_data)
        + struct.pack(">QIIBQ", body.clock_ms, body.reset_count, body.restart_count, body.safe, attest.firmware_version)
        + tail
    )


def digest_pcrs(values: Sequence[bytes]) -> bytes:
    """pcrDigest of a quote: SHA-256 over the PCR values in rising order of their indices."""
    return sha256(b"".join(values)).digest()


def check_ak(public: Public) -> None:
    """Raises Unauthentic("tpm-ak-attributes") unless the key can sign nothing but what its TPM made."""
    needed = BORN_HERE | Attributes.RESTRICTED | Attributes.SIGN
    _check_attributes(public, needed, Attributes.DECRYPT, "tpm-ak-attributes")
    if not public.is_ecc or public.scheme != ALG_ECDSA:
        raise Unauthentic("tpm-ak-attributes")


def check_ek(public: Public) -> None:
    """Raises Unauthentic("tpm-ek-attributes") unless the key is a storage key born in its TPM that wraps AES-128."""
    needed = BORN_HERE | Attributes.RESTRICTED | Attributes.DECRYPT
    _check_attributes(public, needed, Attributes.SIGN, "tpm-ek-attributes")
    if public.symmetric_bits != 128 or public.scheme != ALG_NULL:
        raise Unauthentic("tpm-ek-attributes")


def _check_attributes(public: Public, needed: Attributes, barred: Attributes, rule: str) -> None:
    if public.attributes & (needed | barred | Attributes.ENCRYPTED_DUPLICATION) != needed:
        raise Unauthentic(rule)


def verify_quote(
    attest: bytes, signature: bytes, ak_point: bytes, extra_data: bytes, pcrs: Sequence[tuple[int, bytes]]
) -> Attest:
    """Check a quote by an AK already found good by `check_ak`; `pcrs` are (index, value) as the device told them.

    Raises Unauthentic naming the check: tpm-signature, tpm-type, tpm-extra-data, tpm-pcr-selection, tpm-pcr-digest.
    """
    read = _verify_attest(attest, signature, ak_point, extra_data)
    if not isinstance(read.attested, Quote):
        raise Unauthentic("tpm-type")
    if tuple(index for index, _ in pcrs) != read.attested.pcrs:
        raise Unauthentic("tpm-pcr-selection")
    if any(len(value) != 32 for _, value in pcrs) or digest_pcrs([v for _, v in pcrs]) != read.attested.pcr_digest:
        raise Unauthentic("tpm-pcr-digest")
    return read


def verify_certify(attest: bytes, signature: bytes, ak_point: bytes, extra_data: bytes, public: bytes) -> Public:
    """Check that the AK's TPM made and keeps the P-256 key whose TPMT_PUBLIC is `public`; gives that key.

    Raises Unauthentic naming the check: tpm-signature, tpm-type, tpm-extra-data, tpm-name, tpm-key-attributes.
    """
    read = _verify_attest(attest, signature, ak_point, extra_data)
    if not isinstance(read.attested, Certify):
        raise Unauthentic("tpm-type")
    if read.attested.name != make_name(public):
        raise Unauthentic("tpm-name")
    key = read_public(public)
    _check_attributes(key, BORN_HERE, Attributes.RESTRICTED, "tpm-key-attributes")
    if not key.is_ecc:
        raise Unauthentic("tpm-key-attributes")
    return key


def _verify_attest(attest: bytes, signature: bytes, ak_point: bytes, extra_data: bytes) -> Attest:
    """Signature first: nothing is read from bytes nobody signed."""
    try:
        p256.verify(ak_point, attest, signature)
    except Unauthentic:
        raise Unauthentic("tpm-signature") from None
    read = read_attest(attest)
    if read.extra_data != extra_data:
        raise Unauthentic("tpm-extra-data")
    return read
