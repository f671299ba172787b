"""Standard output that does not lie: a result nobody could read is a failure."""

import json
import os
import sys
from typing import Any

from mpagent.errors import StorageFull


def put_line(text: str) -> None:
    """One line. Raises StorageFull when the reader is gone or its disk is full."""
    put_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def put_json(value: Any) -> None:
    """One JSON object on one line, keys as given."""
    put_line(json.dumps(value, ensure_ascii=False))


def put_bytes(content: bytes) -> None:
    """Raw bytes, unbuffered, so that no copy waits in a buffer. Raises StorageFull.

    Started with standard output closed, its number may by now be that of another file, so nothing is written to it.
    """
    if sys.stdout is None:
        raise StorageFull("cannot write the output: standard output is closed")
    try:
        sys.stdout.flush()
        view = memoryview(content)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
    except OSError as error:
        raise StorageFull(f"cannot write the output: {error.strerror}") from error
