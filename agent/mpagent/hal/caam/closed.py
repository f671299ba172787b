"""What the kernel shows of the CAAM's key: the chip's own, or the public test key of a part that is not closed.

The kernel's line is a reason to refuse and never the proof: it is missing from logs that were cleared, filtered or
turned over. The proof wants a closed fuse and one of the three answers that the design names; `opens_open_blob` is
one of them.
"""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mpagent.hal.caam import faults
from mpagent.hal.caam.keyctl import Keys
from mpagent.hal.caam.rings import Rings
from mpagent.hal.caam.source import Source, has_form
from mpwire.errors import Malformed

_LINE: Final = b"using insecure test key"
"""drivers/crypto/caam/blob_gen.c, at each blob that is made or opened while the part is not secure."""
_RECORD_MAX_BYTES: Final = 8192
_RECORDS_MAX: Final = 4096


class KernelLog:
    """What the kernel logs from here on. Where the log may not be read it is silent, and `readable` says so."""

    def __init__(self, root: Path) -> None:
        self._log: int | None = None
        try:
            self._log = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log, 0, os.SEEK_END)
        except OSError:
            self.close()

    @property
    def readable(self) -> bool:
        """Whether this process may read the log (CAP_SYSLOG, or kernel.dmesg_restrict=0)."""
        return self._log is not None

    def saw_test_key(self) -> bool | None:
        """Whether a line since the start names the test key; None where the log cannot be read."""
        if self._log is None:
            return None
        for _ in range(_RECORDS_MAX):
            try:
                record = os.read(self._log, _RECORD_MAX_BYTES)
            except BlockingIOError:  # not here: the end of a real log, in the QEMU bench
                return False
            except OSError as refused:  # not here: records overwritten before they were read, or a log that fails
                if refused.errno == errno.EPIPE:
                    continue
                return None
            if not record:
                return False
            if _LINE in record:
                return True
        return None  # not here: a log that grows faster than it is read

    def close(self) -> None:
        """Give the log back."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def opens_open_blob(keys: Keys, digits: str) -> bool:
    """Whether the CAAM opens a blob that was made on an open part, given as the 160 digits its kernel printed.

    True: this part uses the public test key, so it is not closed in this boot. False: the CAAM looked at it and
    refused. The blob must come from the signed image: any damaged one is refused by every part. Raises what
    faults.explain_load makes of any other answer, and Malformed for what is no blob of the CAAM.
    """
    try:
        blob = bytes.fromhex(digits)
    except ValueError:
        blob = b""
    if not has_form(Source.CAAM, blob):
        raise Malformed("the test blob of an open part has 160 hexadecimal digits")
    try:
        with Rings(keys).hold("trusted", b"load " + blob.hex().encode()):
            return True
    except OSError as refused:
        if refused.errno == errno.EBADMSG:
            return False
        raise faults.explain_load(refused, Source.CAAM.word) from None
