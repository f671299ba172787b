"""Bytes that come back from a TPM or a disk: response codes and blobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpagent.errors import HardwareBusy, HardwareGone, HardwareLockout
from mpagent.hal.tpm import blobs, faults
from mpagent.hal.tpm.blobs import WrappedObject
from mpwire.errors import MpError, Retry

TCTI_IO_ERROR = 0x000A000A
RESOURCE_MANAGER = 0x000B0000


@pytest.mark.parametrize(
    ("rc", "kind", "says"),
    [
        (0x128, HardwareBusy, "TPM_RC_PCR_CHANGED"),
        (0x908, HardwareBusy, "TPM_RC_YIELDED"),
        (0x90A, HardwareBusy, "TPM_RC_TESTING"),
        (0x920, HardwareBusy, "TPM_RC_NV_RATE"),
        (0x922, HardwareBusy, "TPM_RC_RETRY"),
        (0x923, HardwareBusy, "TPM_RC_NV_UNAVAILABLE"),
        (RESOURCE_MANAGER | 0x922, HardwareBusy, "TPM_RC_RETRY"),
        (0x902, HardwareBusy, "objects"),
        (0x903, HardwareBusy, "sessions"),
        (0x98E, HardwareGone, "password"),
        (0x9A2, HardwareGone, "password"),
        (0x12F, HardwareGone, "password"),
        (0x101, HardwareGone, "0x101"),
        (0x1D5, HardwareGone, "0x095"),
        (TCTI_IO_ERROR, HardwareGone, "does not answer"),
        (0x00070001, HardwareGone, "does not answer"),
    ],
)
def test_response_code_becomes_one_line_with_a_next_step(rc: int, kind: type[MpError], says: str) -> None:
    told = faults.explain(rc, "signing")
    assert type(told) is kind
    assert says in str(told) and "while signing" in str(told) and ":" in str(told)
    assert "\n" not in str(told)
    assert f"0x{rc:08x}" in told.detail


def test_lockout_is_tried_again_later_and_never_latched() -> None:
    told = faults.explain_lockout("signing", 3, 3, 600, "detail")
    assert isinstance(told, HardwareLockout) and told.retry is Retry.LATER


@given(st.binary(min_size=34, max_size=34), st.binary(min_size=1, max_size=512), st.binary(min_size=1, max_size=512))
def test_blob_reads_back(name: bytes, public: bytes, private: bytes) -> None:
    wrapped = WrappedObject(name, public, private)
    assert blobs.read(wrapped.write()) == wrapped


@given(st.binary(max_size=300).map(lambda tail: b"MPT1" + tail) | st.binary(max_size=300))
def test_any_bytes_are_a_blob_or_none_and_only_in_one_spelling(blob: bytes) -> None:
    wrapped = blobs.read(blob)
    assert wrapped is None or wrapped.write() == blob


@pytest.mark.parametrize("part", ["public", "private"])
def test_overlong_part_is_no_blob(part: str) -> None:
    sizes = {"public": 1, "private": 1, part: blobs.PART_MAX_BYTES + 1}
    assert blobs.read(WrappedObject(bytes(34), bytes(sizes["public"]), bytes(sizes["private"])).write()) is None
