"""Which trust source the running kernel has for trusted keys. There is one per boot, and the kernel names it nowhere.

The parameter trusted.source has no file in /sys, and where it is unset the first source that starts wins. So a key is
made, and the form of its blob tells: 80 bytes are CAAM's, 65 the TEE's, 85 with a leading 1 the DCP's; a TPM 2.0
refuses (EINVAL) a key for which no parent was named. Sources: security/keys/trusted-keys/ of Linux,
include/soc/fsl/caam-blob.h, ta/trusted_keys of OP-TEE.
"""

import errno
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final

from mpagent.errors import HardwareGone
from mpagent.hal.caam import faults
from mpagent.hal.caam.keyctl import Keys
from mpagent.hal.caam.rings import Rings

KEK_BYTES: Final = 32
NEW: Final = f"new {KEK_BYTES}".encode()


class Source(IntEnum):
    """As our blobs number them."""

    CAAM = 1
    TEE = 2
    TPM = 3
    DCP = 4

    @property
    def word(self) -> str:
        """As trusted.source= and the image's list of accepted sources spell it."""
        return self.name.lower()

    @property
    def receipt_name(self) -> str:
        """As receipts print the sealer."""
        return "caam" if self is Source.CAAM else f"kernel-{self.word}"


WORDS: Final[Mapping[str, Source]] = {source.word: source for source in Source}
_BLOB_BYTES: Final[Mapping[Source, int]] = {
    Source.CAAM: KEK_BYTES + 48,
    Source.TEE: KEK_BYTES + 33,
    Source.DCP: KEK_BYTES + 53,
}
_PARTS: Final[Mapping[Source, tuple[str, ...]]] = {
    Source.CAAM: ("fsl,sec-v4.0",),
    Source.DCP: ("fsl,imx28-dcp", "fsl,imx6sl-dcp", "fsl,imx6ull-dcp"),
}
_TEE_TA: Final = "optee-ta-f04a0fe7-1f5d-4b9b-abf7-619b85b4ce8c"


def has_form(source: Source, blob: bytes) -> bool:
    """Whether a blob of this source looks like these bytes. CAAM's driver must never be given a short one: before it
    checked, it took the length of the key as the blob's less 48."""
    if source is Source.TPM:
        return blob[:1] == b"\x30"
    if source is Source.DCP and blob[:1] != b"\x01":
        return False
    return len(blob) == _BLOB_BYTES[source]


def find_source(keys: Keys, root: Path) -> Source:
    """Make one key to see which source seals it. Raises HardwareAbsent where there is none and no part for one.

    HardwareGone: the part of a source is there and the kernel does not use it, or a blob of no known form.
    """
    try:
        with Rings(keys).hold("trusted", NEW) as key:
            shown = keys.read(key.serial)
    except OSError as refused:
        if refused.errno == errno.EINVAL:
            return Source.TPM
        raise faults.explain_no_source(refused, list_parts(root)) from None
    blob = faults.read_digits(shown)
    for source in _BLOB_BYTES:
        if has_form(source, blob):
            return source
    raise HardwareGone(
        f"the kernel seals trusted keys in a form that is not known ({len(blob)} bytes)",
        advice="name a source that mpagent knows on the kernel's command line, e.g. trusted.source=caam",
    )


def list_parts(root: Path) -> tuple[str, ...]:
    """Words of the sources whose hardware this kernel sees below `root`/sys, whether it is used or not."""
    found = {source.word for source, names in _PARTS.items() if _in_device_tree(root, names)}
    if any((root / "sys/class/tpm").glob("tpm*")):
        found.add(Source.TPM.word)
    if (root / "sys/bus/tee/devices" / _TEE_TA).exists():
        found.add(Source.TEE.word)
    return tuple(sorted(found))


def _in_device_tree(root: Path, names: tuple[str, ...]) -> bool:
    for listed in (root / "sys/bus/platform/devices").glob("*/of_node/compatible"):
        try:
            spelled = listed.read_bytes().split(b"\0")
        except OSError:
            continue  # a device that left while we looked
        if any(name.encode() in spelled for name in names):
            return True
    return False
