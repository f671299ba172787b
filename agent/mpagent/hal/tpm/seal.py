"""The sealer: a 32-byte key as a sealed object under the storage root."""

from typing import Final

from mpagent.errors import NotMine
from mpagent.hal.tpm import blobs, faults, templates
from mpagent.hal.tpm.chip import Chip
from mpwire.errors import Malformed, MpError
from mpwire.secret import Secret

DEK_BYTES: Final = 32


class TpmSealer:
    """Seals for this TPM until it is cleared; about 280 bytes a blob."""

    name: str = "tpm"

    def __init__(self, chip: Chip) -> None:
        self._chip = chip

    def seal(self, dek: Secret) -> bytes:
        """TPM2_Create of a sealed object; the key is encrypted on the bus."""
        if len(dek) != DEK_BYTES:
            raise Malformed(f"a data encryption key has {DEK_BYTES} bytes, not {len(dek)}")
        return self._chip.make_child(templates.SEALED, "sealing", sealed=dek.reveal()).write()

    def unseal(self, blob: bytes) -> Secret:
        """TPM2_Unseal, encrypted on the bus. Raises NotMine also for a damaged blob."""
        wrapped = blobs.read(blob)
        if wrapped is None or not templates.SEALED.fits(wrapped.public):
            raise NotMine("not a blob that a TPM sealed for us")
        if wrapped.parent_name != self._chip.root_name():
            raise NotMine("sealed by another TPM, or before this one was cleared")
        with self._chip.loaded(wrapped, "loading a sealed key", _not_ours) as item:
            session = self._chip.private_session(inward=False)
            dek = Secret(bytes(self._chip.run("unsealing", lambda esapi: esapi.unseal(item, session1=session))))
        if len(dek) != DEK_BYTES:
            raise NotMine(f"a sealed object of {len(dek)} bytes is not a key of ours")
        return dek


def _not_ours(code: int) -> MpError | None:
    return NotMine("a sealed blob that was damaged") if faults.is_about_input(code) else None
