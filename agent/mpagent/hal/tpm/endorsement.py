"""The endorsement key: made anew from the endorsement seed each time it is needed, and its certificate in NV.

A TPM may have several EKs. Ours is the P-256 one, unless its maker certified the RSA one alone: the choice follows
from what the maker wrote, which only the platform hierarchy can change, so it is the same at every start.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from mpagent.errors import HardwareGone
from mpagent.hal.tpm import faults, templates
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.templates import Template
from mpwire.errors import MpError

CERTIFICATE_INDEX: Final = 0x01C0000A
"""ECC NIST P-256 EK certificate. Source: TCG EK Credential Profile, section 2.2.1.4."""
RSA_CERTIFICATE_INDEX: Final = 0x01C00002
"""RSA 2048 EK certificate, same source."""
RSA_KEPT: Final = 0x81010001
"""Where makers keep the RSA EK (TCG PC Client Platform TPM Profile, TPM 2.0 Provisioning Guidance, section 7.8)."""
CERTIFICATE_MAX_BYTES: Final = 4_096
"""What Hello takes; more than any EK certificate seen."""
_CHUNK_BYTES: Final = 512
"""The smallest NV read a PC Client TPM must offer is above this."""
_NO_EXPIRY: Final = 0
_READING: Final = "reading the EK certificate"
_DER_SEQUENCE: Final = 0x30
_ADVICE: Final = "have the TPM's maker look at it; a product can list this EK by Name only once the index is empty"


class _Absent(MpError):
    """No certificate at the index; never leaves this module."""


class Endorsement(NamedTuple):
    """Which EK this TPM shows."""

    template: Template
    certificate: bytes | None
    """DER, without the padding some makers leave behind it."""


def find_endorsement(chip: Chip) -> Endorsement:
    """Raises HardwareGone for an index that holds something else than a certificate."""
    certificate = read_certificate(chip, CERTIFICATE_INDEX)
    if certificate is None:
        rsa = read_certificate(chip, RSA_CERTIFICATE_INDEX)
        if rsa is not None:
            return Endorsement(templates.ENDORSEMENT_RSA, rsa)
    return Endorsement(templates.ENDORSEMENT, certificate)


@contextmanager
def loaded(chip: Chip, template: Template) -> Iterator[Any]:
    """The EK in the TPM, for as long as the block runs."""
    with _opened(chip, template) as (handle, _):
        yield handle


def read_public(chip: Chip, template: Template) -> bytes:
    """TPMT_PUBLIC of the EK: the same until the endorsement seed changes."""
    with _opened(chip, template) as (_, public):
        return public


@contextmanager
def _opened(chip: Chip, template: Template) -> Iterator[tuple[Any, bytes]]:
    """Handle and TPMT_PUBLIC. An RSA EK that its maker keeps in the TPM is used as it is: another may take a minute."""
    kept = _find_kept(chip, template) if template is templates.ENDORSEMENT_RSA else None
    if kept is not None:
        yield kept
        return
    handle, public = chip.make_primary(chip.tss.ESYS_TR.ENDORSEMENT, template, "making the EK")
    with chip.holding(handle):
        yield handle, public


def _find_kept(chip: Chip, template: Template) -> tuple[Any, bytes] | None:
    """The persistent RSA EK, if it is one of the template: whether it is the certified one, the issuer compares."""
    try:
        handle = chip.run("looking for the EK", lambda esapi: esapi.tr_from_tpmpublic(RSA_KEPT), _absent)
    except _Absent:
        return None
    public, *_ = chip.run("looking for the EK", lambda esapi: esapi.read_public(handle))
    area = bytes(public.publicArea.marshal())
    return (handle, area) if area.startswith(template.stem) and len(area) == len(template.wanted) else None


@contextmanager
def authorised(chip: Chip) -> Iterator[Any]:
    """A policy session that fulfils the EK's policy: PolicySecret of the endorsement hierarchy."""
    with chip.policy_session() as policy:
        chip.run(
            "fulfilling the EK policy",
            lambda esapi: esapi.policy_secret(chip.tss.ESYS_TR.ENDORSEMENT, policy, b"", b"", b"", _NO_EXPIRY),
        )
        yield policy


def read_certificate(chip: Chip, index: int) -> bytes | None:
    """DER; None when the index is absent, was never written, or is blank. Raises HardwareGone for anything else."""
    try:
        content = _read_index(chip, index)
    except _Absent:
        return None
    if not content.strip(b"\x00") or not content.strip(b"\xff"):
        return None
    certificate = cut_der(content)
    if certificate is None:
        raise HardwareGone(
            f"the TPM's EK certificate index 0x{index:08X} holds {len(content)} bytes that are no certificate",
            advice=_ADVICE,
        )
    return certificate


def _read_index(chip: Chip, number: int) -> bytes:
    index = chip.run(_READING, lambda esapi: esapi.tr_from_tpmpublic(number), _absent)
    public, _ = chip.run(_READING, lambda esapi: esapi.nv_read_public(index))
    size = int(public.nvPublic.dataSize)
    if size > CERTIFICATE_MAX_BYTES:
        raise HardwareGone(
            f"the TPM's EK certificate index 0x{number:08X} has {size} bytes: more than any certificate",
            advice=_ADVICE,
        )
    content = b""
    while len(content) < size:
        content += _read_chunk(chip, index, min(_CHUNK_BYTES, size - len(content)), len(content))
    return content


def _read_chunk(chip: Chip, index: Any, size: int, offset: int) -> bytes:
    return bytes(chip.run(_READING, lambda esapi: esapi.nv_read(index, size, offset), _absent))


def cut_der(content: bytes) -> bytes | None:
    """The first DER SEQUENCE of these bytes, or None when there is no whole one."""
    if len(content) < 4 or content[0] != _DER_SEQUENCE or not 0x81 <= content[1] <= 0x82:
        return None
    head = 2 + (content[1] & 0x7F)
    end = head + int.from_bytes(content[2:head], "big")
    return content[:end] if end <= len(content) else None


def _absent(code: int) -> MpError | None:
    return _Absent("no EK certificate") if code in (faults.HANDLE, faults.NV_UNINITIALIZED) else None
