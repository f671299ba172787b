"""What a file's name alone says: things that have no place on a device, whatever is in them.

The layer's check of a production image (yocto-layer/lib/mpagentlayer/production.py) knows the same names; a test
compares them, for bitbake cannot import from here.
"""

import re
from collections.abc import Iterator
from typing import Final

from mpserver.scan.findings import Kind, Severity

MP_SIGN: Final = "8aaaf200-2450-11e4-abe2-0002a5d5c51c"
"""NXP's test TA: it signs with the MP key for whoever asks (imx-optee-test, ta/mp_sign)."""
NEVER_ON_A_DEVICE: Final = re.compile(r"(mpsim|mpissuer|mpserver)(\.py)?|mpagent_(sim|server)-[^/]*\.dist-info")
_LAB_FILES: Final = (
    (re.compile(r"(?:^|/)keys/symmetric\.key$"), "the symmetric root of an mpserver keystore"),
    (re.compile(r"(?:^|/)keys/jobs/[0-9a-f]+\.key$"), "a job key of an mpserver keystore"),
    (re.compile(r"(?:^|/)keys/vault/[0-9a-f]+\.prk$"), "a secret of an mpserver vault"),
    (re.compile(r"(?:^|/)chip/otpmk$"), "the master key of a simulated chip"),
)


def judge_name(path: str) -> Iterator[tuple[Kind, Severity, str]]:
    """Of one member, by its path within its container."""
    parts = path.split("/")
    if parts[-1].lower().startswith(MP_SIGN):
        yield Kind.OPTEE, Severity.OPEN, "NXP's test TA mp_sign signs with the MP key for anybody"
    found = next((one for one in parts if NEVER_ON_A_DEVICE.fullmatch(one)), None)
    if found is not None:
        yield Kind.LAB, Severity.REVIEW, f"{found}: never on a device"
    for pattern, words in _LAB_FILES:
        if pattern.search(path):
            yield Kind.LAB, Severity.LEAK, words
