"""PCR approvals: what the OEM signs so that a TPM opens a sealed key for software that measures so (docs/wire.md 5.4).

The forms of the digests are the TPM's own: TPM 2.0 Library Part 3 (TCG, revision 1.59), TPM2_PolicyPCR (section 23.7)
and TPM2_PolicyAuthorize (section 23.16). Only the SHA-256 bank is used.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final

from mpwire import labels, p256, tpm2
from mpwire.codec import encode
from mpwire.errors import Malformed, Unauthentic
from mpwire.messages.issuer import PCR_APPROVAL, PCR_INDEX_MAX, PcrApproval

APPROVAL_MAX_BYTES: Final = 1_024
"""16 PCRs of 32 bytes, a product's name, a signature and framing, rounded up."""
_CC_POLICY_AUTHORIZE: Final = 0x0000016A
_CC_POLICY_PCR: Final = 0x0000017F
_BLANK: Final = bytes(32)
"""A policy digest before the first policy command."""
_UNSIGNED: Final = bytes(p256.SIGNATURE_BYTES)


def write_authority(point: bytes) -> bytes:
    """TPMT_PUBLIC of the authority's key as a TPM loads it; its Name is in every policy made here."""
    attributes = tpm2.Attributes.SIGN | tpm2.Attributes.USER_WITH_AUTH
    return tpm2.write_public(tpm2.Public(attributes, point, scheme=tpm2.ALG_ECDSA))


def make_reference(realm: str, product: str) -> bytes:
    """policyRef, 32 bytes: an approval for another product or realm fits no key that was sealed for this one."""
    return sha256(encode([labels.PCR_APPROVAL, realm, product])).digest()


def seal_policy(point: bytes, reference: bytes) -> bytes:
    """authPolicy of a sealed key: it opens after TPM2_PolicyAuthorize by this authority under this policyRef alone."""
    named = sha256(_BLANK + struct.pack(">I", _CC_POLICY_AUTHORIZE) + tpm2.make_name(write_authority(point))).digest()
    return sha256(named + reference).digest()


def pcr_policy(pcrs: Sequence[tuple[int, bytes]]) -> bytes:
    """The policy digest after TPM2_PolicyPCR while these PCRs, rising, have these values."""
    selected = sum(1 << index for index, _ in pcrs).to_bytes(tpm2.PCR_SELECT_BYTES, "little")
    selection = struct.pack(">IHB", 1, tpm2.ALG_SHA256, tpm2.PCR_SELECT_BYTES) + selected
    values = tpm2.digest_pcrs([value for _, value in pcrs])
    return sha256(_BLANK + struct.pack(">I", _CC_POLICY_PCR) + selection + values).digest()


def write_approval(
    realm: str, product: str, pcrs: Sequence[tuple[int, bytes]], sign: Callable[[bytes], bytes]
) -> bytes:
    """The approval's bytes; `sign` is ES256 by the PCR authority. Raises Malformed for PCRs no reader would take."""
    draft = PcrApproval(realm, product, tuple(pcrs), _UNSIGNED)
    _check_pcrs(draft)
    raw: bytes = PCR_APPROVAL.encode(draft._replace(signature=sign(statement(draft))))
    return raw


def read_approval(raw: bytes) -> PcrApproval:
    """Raises Malformed. Nothing in it is authentic before `verify_approval`."""
    approval: PcrApproval = PCR_APPROVAL.decode(raw, APPROVAL_MAX_BYTES)
    _check_pcrs(approval)
    return approval


def verify_approval(approval: PcrApproval, point: bytes) -> None:
    """Raises Unauthentic("pcr-approval-signature") unless this authority signed it, for its realm and product."""
    try:
        p256.verify(point, statement(approval), approval.signature)
    except Unauthentic:
        raise Unauthentic("pcr-approval-signature") from None


def statement(approval: PcrApproval) -> bytes:
    """What the authority signs, 64 bytes: the PCR policy and the policyRef, as TPM2_PolicyAuthorize wants it."""
    return pcr_policy(approval.pcrs) + make_reference(approval.realm, approval.product)


def _check_pcrs(approval: PcrApproval) -> None:
    """Rising, so that one approval has one spelling; not all zero, as on a machine that measures nothing."""
    indices = [index for index, _ in approval.pcrs]
    if not indices or min(indices) < 0 or max(indices) > PCR_INDEX_MAX:
        raise Malformed(f"pcr-approval: PCRs are 1 to {PCR_INDEX_MAX + 1} of 0 to {PCR_INDEX_MAX}")
    if any(second <= first for first, second in pairwise(indices)):
        raise Malformed("pcr-approval: pcrs do not rise")
    if not any(any(value) for _, value in approval.pcrs):
        raise Malformed("pcr-approval: every PCR is zero, which is no software at all")
