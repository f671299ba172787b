"""The sealer: a 32-byte key as a sealed object under the storage root, bound to approved software where asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from mpagent.errors import NotMine, PcrsMoved
from mpagent.hal.tpm import blobs, faults, templates
from mpagent.hal.tpm.blobs import WrappedObject
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.pcrs import PcrPolicy
from mpwire.errors import Malformed, MpError
from mpwire.secret import Secret

DEK_BYTES: Final = 32


class TpmSealer:
    """Seals for this TPM until it is cleared; about 280 bytes a blob, 34 more under a policy."""

    name: str = "tpm"

    def __init__(self, chip: Chip, policy: PcrPolicy | None = None) -> None:
        self._chip = chip
        self._policy = policy

    def seal(self, dek: Secret) -> bytes:
        """TPM2_Create of a sealed object; the key is encrypted on the bus.

        Under a policy raises PcrsMoved, having made nothing, where it could not be unsealed now.
        """
        if len(dek) != DEK_BYTES:
            raise Malformed(f"a data encryption key has {DEK_BYTES} bytes, not {len(dek)}")
        template = templates.SEALED
        if self._policy is not None:
            self._policy.find_fitting()
            template = templates.sealed_under(self._policy.digest)
        return self._chip.make_child(template, "sealing", sealed=dek.reveal()).write()

    def unseal(self, blob: bytes) -> Secret:
        """TPM2_Unseal, encrypted on the bus. Raises NotMine also for a damaged blob, and PcrsMoved.

        A key that was sealed before the image asked for a policy opens without one.
        """
        wrapped = blobs.read(blob)
        policy = None if wrapped is None else templates.read_seal_policy(wrapped.public)
        if wrapped is None or policy is None:
            raise NotMine("not a blob that a TPM sealed for us")
        if wrapped.parent_name != self._chip.root_name():
            raise NotMine("sealed by another TPM, or before this one was cleared")
        with self._opened(wrapped, policy) as (item, authorisation):
            private = self._chip.private_session(inward=False)
            opened = self._chip.run(
                "unsealing", lambda esapi: esapi.unseal(item, session1=authorisation, session2=private)
            )
        dek = Secret(bytes(opened))
        if len(dek) != DEK_BYTES:
            raise NotMine(f"a sealed object of {len(dek)} bytes is not a key of ours")
        return dek

    @contextmanager
    def _opened(self, wrapped: WrappedObject, policy: bytes) -> Iterator[tuple[Any, Any]]:
        """The sealed object and the session that may unseal it."""
        if policy:
            with self._bound(wrapped, policy) as opened:
                yield opened
            return
        with self._chip.loaded(wrapped, "loading a sealed key", _not_ours) as item:
            yield item, self._chip.tss.ESYS_TR.PASSWORD

    @contextmanager
    def _bound(self, wrapped: WrappedObject, policy: bytes) -> Iterator[tuple[Any, Any]]:
        """Under a PCR policy. Once the TPM took the blob it is whole: another policy is another image's, no damage."""
        ours = self._policy
        if ours is None or policy != ours.digest:
            with self._chip.loaded(wrapped, "loading a sealed key", _not_ours):
                raise PcrsMoved("sealed under a PCR authority that this image does not name")
        approval = ours.find_fitting()
        # Before the sealed key is loaded, so that no more than two objects are: a TPM has room for three.
        ticket = ours.prove(approval)
        with (
            self._chip.loaded(wrapped, "loading a sealed key", _not_ours) as item,
            ours.authorised(approval, ticket) as session,
        ):
            yield item, session


def _not_ours(code: int) -> MpError | None:
    return NotMine("a sealed blob that was damaged") if faults.is_about_input(code) else None
