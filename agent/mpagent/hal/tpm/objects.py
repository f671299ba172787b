"""Objects that the TPM wrapped and the Shelf keeps: find or make, and trust nothing the disk says."""

from typing import Any

from mpagent.errors import NotMine, Tampered
from mpagent.hal.ports import Shelf
from mpagent.hal.tpm import blobs, faults
from mpagent.hal.tpm.blobs import WrappedObject
from mpagent.hal.tpm.chip import Chip, Meaning
from mpagent.hal.tpm.templates import Template
from mpwire import p256
from mpwire.errors import MpError


def find_or_make(chip: Chip, shelf: Shelf, name: str, template: Template) -> WrappedObject:
    """The P-256 key kept under this name; a new one is on the Shelf before this returns.

    Raises NotMine: another TPM made it, or this one was cleared since. Tampered: it is ours and damaged, or has other
    attributes than ours, as a key imported from outside would have.
    """
    blob = shelf.find(name)
    if blob is None:
        made = chip.make_child(template, f"making {name}")
        shelf.put(name, made.write())
        return made
    found = blobs.read(blob)
    if found is None:
        raise Tampered(f"{name} on the state partition is damaged")
    if found.parent_name != chip.root_name():
        raise NotMine(f"{name} was made by another TPM, or before this one was cleared")
    if not template.fits(found.public):
        raise Tampered(f"{name} is not a key of ours: its attributes differ")
    with chip.loaded(found, f"loading {name}", _damaged(name)):
        return found


def read_signature(signature: Any) -> bytes:
    """r || s, 64 bytes, of a TPMT_SIGNATURE by ECDSA: a TPM may leave out leading zeros."""
    ecdsa = signature.signature.ecdsa
    return b"".join(bytes(part).rjust(p256.SCALAR_BYTES, b"\0") for part in (ecdsa.signatureR, ecdsa.signatureS))


def _damaged(name: str) -> Meaning:
    """Load complains of what it was given: parent and attributes are right, so the wrapped bytes are not."""

    def judge(code: int) -> MpError | None:
        return Tampered(f"{name} on the state partition is damaged") if faults.is_about_input(code) else None

    return judge
