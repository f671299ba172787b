"""In the guest: one use of the sealer in a boot, `once.py seal|load|refusal|counter`. It answers one line of JSON."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from mpagent.advice import advise
from mpagent.hal.caam import KernelKeySealer, open_kernel_key
from mpagent.hal.tpm.chip import Chip, open_chip
from mpwire.errors import MpError
from mpwire.secret import Secret

TCTI = "device:/dev/tpmrm0"
DEK = Secret(bytes(range(32)))
BLOB = Path("/run/share/blob")
LOCKOUT_COUNTER = 0x20E


def open_sealer(stack: ExitStack) -> tuple[KernelKeySealer, Chip]:
    """Over the guest's TPM."""
    chip = open_chip(TCTI)
    stack.callback(chip.close)
    return open_kernel_key(["tpm"], lambda: chip), chip


def seal(stack: ExitStack) -> dict[str, object]:
    sealer, chip = open_sealer(stack)
    blob = sealer.seal(DEK)
    BLOB.write_bytes(blob)
    return {"name": sealer.name, "wrapper": sealer.wrapper_name, "bytes": len(blob), **counter(chip)}


def load(stack: ExitStack) -> dict[str, object]:
    sealer, chip = open_sealer(stack)
    before = counter(chip)
    try:
        opened = sealer.unseal(BLOB.read_bytes()) == DEK
    except MpError as refused:
        return {"opened": False, "kind": type(refused).__name__, "text": str(refused), **before}
    return {"opened": opened, **before}


def refusal(stack: ExitStack) -> dict[str, object]:
    """What an image that takes CAAM alone is told here."""
    try:
        open_kernel_key(["caam"])
    except MpError as refused:
        return {"kind": type(refused).__name__, "text": str(refused), "advice": advise(refused)}
    return {"kind": None}


def counter(chip: Chip) -> dict[str, object]:
    return {"counter": chip.read_properties(LOCKOUT_COUNTER, 1)[LOCKOUT_COUNTER]}


def main(verb: str) -> None:
    with ExitStack() as stack:
        if verb == "counter":
            chip = open_chip(TCTI)
            stack.callback(chip.close)
            answer = counter(chip)
        else:
            answer = {"seal": seal, "load": load, "refusal": refusal}[verb](stack)
        print(json.dumps(answer), flush=True)


main(sys.argv[1])
