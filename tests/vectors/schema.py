"""Runs in the environment of the CDDL checker: every vector on standard input against docs/wire.cddl.

In: a JSON array of [rule, hex]. Out: a JSON array, null where the schema takes the bytes, else why not.
"""

import contextlib
import io
import json
import sys
from typing import Any

import zcbor
from cbor2 import CBORDecodeError

REPEATS_MAX = 1_024
"""What the checker takes `*` for; the schema itself bounds every array and map."""


def complain(kind: Any, raw: bytes) -> str | None:
    """Why the bytes are not of this kind, None where they are. The checker prints its search: that is dropped."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            kind.validate_str(raw)
    except (zcbor.CddlValidationError, CBORDecodeError) as error:  # anything else is the checker's own trouble
        return f"{type(error).__name__}: {error}"[:200]
    return None


def main() -> None:
    """Read, check, answer."""
    with open(sys.argv[1]) as file:
        rules = zcbor.DataTranslator.from_cddl(file.read(), REPEATS_MAX).my_types
    json.dump([complain(rules[rule], bytes.fromhex(told)) for rule, told in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
