"""Public areas: what we ask a TPM to make, and what we accept back from a disk.

Everything here is P-256 with SHA-256 names. Nothing we make is subject to dictionary-attack protection (noDA): after
a few power cuts a TPM without an orderly shutdown would otherwise lock it, and the parent counts as well as the child.
"""

import struct
from typing import Final, NamedTuple

from mpwire.tpm2 import ALG_ECDSA, ALG_NULL, ALG_SHA256, BORN_HERE, RSA_BYTES, Attributes, Public, write_public

_EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""TPM2_PolicySecret(TPM_RH_ENDORSEMENT). Source: TCG EK Credential Profile, template L-2."""
_ALG_KEYEDHASH: Final = 0x0008
_ZERO_POINT: Final = b"\x04" + bytes(64)
_PART_HEAD: Final = struct.pack(">H", 32)
_PART_BYTES: Final = 34
"""A length and its 32 bytes: `unique` is two of them for a point, one for a digest."""


class Template(NamedTuple):
    """A public area up to its last field, `unique`, which the TPM fills."""

    stem: bytes
    blank: bytes
    """`unique` as the template has it; in a primary it decides which key comes out."""
    unique_parts: int
    """How many parts of _PART_BYTES `unique` has as a TPM returns it."""

    @property
    def wanted(self) -> bytes:
        """The TPMT_PUBLIC to make an object of."""
        return self.stem + self.blank

    def fits(self, public: bytes) -> bool:
        """Whether a public area differs from this one in `unique` alone.

        A disk may hold one that somebody else wrote, e.g. of a key they made outside and imported.
        """
        unique = public[len(self.stem) :]
        heads = (unique[part * _PART_BYTES :][:2] for part in range(self.unique_parts))
        whole = len(unique) == self.unique_parts * _PART_BYTES and all(head == _PART_HEAD for head in heads)
        return whole and public.startswith(self.stem)


def _ecc(attributes: Attributes, *, policy: bytes = b"", wraps: bool = False, scheme: int = ALG_NULL) -> Template:
    public = Public(BORN_HERE | attributes, _ZERO_POINT, policy, symmetric_bits=128 if wraps else None, scheme=scheme)
    area = write_public(public)
    return Template(area[: -2 * _PART_BYTES], area[-2 * _PART_BYTES :], unique_parts=2)


def _rsa_endorsement() -> Template:
    """As the ECC one, with a modulus of zeros. It is never compared with what a disk holds."""
    attributes = BORN_HERE | Attributes.ADMIN_WITH_POLICY | Attributes.RESTRICTED | Attributes.DECRYPT
    area = write_public(Public(attributes, bytes(RSA_BYTES), _EK_POLICY, symmetric_bits=128))
    return Template(area[: -2 - RSA_BYTES], area[-2 - RSA_BYTES :], unique_parts=0)


def _sealed(attributes: Attributes, policy: bytes = b"") -> Template:
    """TPMT_PUBLIC of a data object without scheme (TPM 2.0 Library, Part 2, section 12.2.3.3)."""
    head = struct.pack(">HHIH", _ALG_KEYEDHASH, ALG_SHA256, attributes, len(policy))
    stem = head + policy + struct.pack(">H", ALG_NULL)
    return Template(stem, struct.pack(">H", 0), unique_parts=1)


_OURS: Final = Attributes.USER_WITH_AUTH | Attributes.NO_DA

ENDORSEMENT: Final = _ecc(
    Attributes.ADMIN_WITH_POLICY | Attributes.RESTRICTED | Attributes.DECRYPT, policy=_EK_POLICY, wraps=True
)
"""The EK of template L-2 (ECC NIST P-256). Any other template gives another EK than the certificate's."""
ENDORSEMENT_RSA: Final = _rsa_endorsement()
"""The EK of template L-1 (RSA 2048), for a TPM whose maker certified no other."""
STORAGE_ROOT: Final = _ecc(_OURS | Attributes.RESTRICTED | Attributes.DECRYPT, wraps=True)
"""The SRK: a primary made anew at each start from the owner seed, so its Name is the same at every boot."""
ATTESTATION: Final = _ecc(_OURS | Attributes.RESTRICTED | Attributes.SIGN, scheme=ALG_ECDSA)
"""The AK: restricted, so that it signs only what the TPM itself made."""
DEVICE_KEY: Final = _ecc(_OURS | Attributes.SIGN | Attributes.DECRYPT)
"""One key for both ECDSA and ECDH, as the holder's labels keep them apart."""
SEALED: Final = _sealed(Attributes.FIXED_TPM | Attributes.FIXED_PARENT | _OURS)
"""A sealed object; its data comes from us, so sensitiveDataOrigin is clear."""
_POLICY_PLACE: Final = slice(10, 42)
"""authPolicy in a sealed object's public area: after type, nameAlg, attributes and its own length."""


def sealed_under(policy: bytes) -> Template:
    """A sealed object that no password opens: userWithAuth is clear, so TPM2_Unseal asks for this policy."""
    fixed = Attributes.FIXED_TPM | Attributes.FIXED_PARENT
    return _sealed(fixed | Attributes.ADMIN_WITH_POLICY | Attributes.NO_DA, policy)


def read_seal_policy(public: bytes) -> bytes | None:
    """authPolicy of a sealed object of ours, empty for one that is bound to the chip alone; None for any other."""
    if SEALED.fits(public):
        return b""
    policy = public[_POLICY_PLACE]
    return policy if sealed_under(policy).fits(public) else None


def point_of(public: bytes) -> bytes:
    """The uncompressed point, 65 bytes, of a P-256 public area as a TPM returns it."""
    unique = public[-2 * _PART_BYTES :]
    return b"\x04" + unique[2:34] + unique[36:68]
