"""The endorsement key: made anew from the endorsement seed each time it is needed, and its certificate in NV."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from mpagent.errors import HardwareGone
from mpagent.hal.tpm import faults, templates
from mpagent.hal.tpm.chip import Chip
from mpwire.errors import MpError

CERTIFICATE_INDEX: Final = 0x01C0000A
"""ECC NIST P-256 EK certificate. Source: TCG EK Credential Profile, section 2.2.1.4."""
CERTIFICATE_MAX_BYTES: Final = 4_096
"""More than any EK certificate seen; Hello bounds it again."""
_CHUNK_BYTES: Final = 512
"""The smallest NV read a PC Client TPM must offer is above this."""
_NO_EXPIRY: Final = 0
_READING: Final = "reading the EK certificate"
_DER_SEQUENCE: Final = 0x30


class _Absent(MpError):
    """No certificate at the index; never leaves this module."""


@contextmanager
def loaded(chip: Chip) -> Iterator[Any]:
    """The EK in the TPM, for as long as the block runs."""
    handle, _ = chip.make_primary(chip.tss.ESYS_TR.ENDORSEMENT, templates.ENDORSEMENT, "making the EK")
    with chip.holding(handle):
        yield handle


def read_public(chip: Chip) -> bytes:
    """TPMT_PUBLIC of the EK: the same until the endorsement seed changes."""
    handle, public = chip.make_primary(chip.tss.ESYS_TR.ENDORSEMENT, templates.ENDORSEMENT, "making the EK")
    with chip.holding(handle):
        return public


@contextmanager
def authorised(chip: Chip) -> Iterator[Any]:
    """A policy session that fulfils the EK's policy: PolicySecret of the endorsement hierarchy."""
    tss = chip.tss
    symmetric = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
    policy = chip.run(
        "opening a policy session",
        lambda esapi: esapi.start_auth_session(
            tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.POLICY, symmetric, tss.TPM2_ALG.SHA256
        ),
    )
    with chip.holding(policy):
        chip.run(
            "fulfilling the EK policy",
            lambda esapi: esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, policy, b"", b"", b"", _NO_EXPIRY),
        )
        yield policy


def read_certificate(chip: Chip) -> bytes | None:
    """DER without the padding some makers leave behind it; None when the index is absent, unwritten or no DER."""
    try:
        index = chip.run(_READING, lambda esapi: esapi.tr_from_tpmpublic(CERTIFICATE_INDEX), _absent)
        content = _read_index(chip, index)
    except _Absent:
        return None
    return cut_der(content)


def _read_index(chip: Chip, index: Any) -> bytes:
    public, _ = chip.run(_READING, lambda esapi: esapi.nv_read_public(index))
    size = int(public.nvPublic.dataSize)
    if size > CERTIFICATE_MAX_BYTES:
        raise HardwareGone(f"the EK certificate index has {size} bytes: more than any certificate")
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
