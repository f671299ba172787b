"""The sealer: a data encryption key wrapped under a trusted key of the kernel, which a chip sealed."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from mpagent.errors import HardwareGone, NotMine
from mpagent.hal.caam import blobs, faults
from mpagent.hal.caam.blobs import DEK_BYTES, KEK_DIGITS_MAX, KekBlob, SealedDek
from mpagent.hal.caam.keyctl import Keys
from mpagent.hal.caam.rings import Rings
from mpagent.hal.caam.source import KEK_BYTES, NEW, Source, has_form
from mpagent.hal.caam.wrap import NONCE_BYTES, HeldKey, Wrapper
from mpwire.errors import Malformed, MpError
from mpwire.secret import Secret

if TYPE_CHECKING:
    from mpagent.hal.caam.tpm_root import TpmRoot

_TYPE: Final = "trusted"


class KernelKeySealer:
    """One fresh key encryption key for each blob. About 230 bytes a blob from CAAM, 540 from a TPM."""

    def __init__(
        self,
        keys: Keys,
        wrapper: Wrapper,
        source: Source,
        tpm: "TpmRoot | None" = None,
        *,
        test_key: bool | None = None,
    ) -> None:
        self._rings = Rings(keys)
        self._keys = keys
        self._wrapper = wrapper
        self._tpm = tpm
        self.source: Final = source
        self.name: str = source.receipt_name
        self.test_key: Final = test_key
        """Whether the CAAM sealed under its public test key when it was opened (closed.py). None: not knowable."""

    @property
    def wrapper_name(self) -> str:
        """ "af_alg" or "dm-crypt": for doctor."""
        return self._wrapper.name

    def seal(self, dek: Secret) -> bytes:
        """A fresh key seals, is loaded again from what it showed, and opens what was wrapped; only then is it said."""
        if len(dek) != DEK_BYTES:
            raise Malformed(f"a data encryption key has {DEK_BYTES} bytes, not {len(dek)}")
        nonce = secrets.token_bytes(NONCE_BYTES)
        if self._tpm is not None:
            kek = self._make_tpm_blob(self._tpm)
            with self._loaded(kek) as key:
                wrapped = self._wrap(key, nonce, kek, dek)
        else:
            with self._held(NEW) as key:
                kek = KekBlob(self.source, self._read(key))
                wrapped = self._wrap(key, nonce, kek, dek)
        blob = SealedDek(kek, nonce, wrapped).write()
        self._prove(blob, dek)
        return blob

    def unseal(self, blob: bytes) -> Secret:
        """Raises NotMine also for a damaged blob. HardwareGone: another source than this boot's sealed it."""
        sealed = blobs.read(blob)
        if sealed is None:
            raise NotMine("not a blob that a kernel's trusted key sealed for us")
        if sealed.kek.source is not self.source:
            raise faults.refuse_other_source(sealed.kek.source.word, self.source.word)
        with self._loaded(sealed.kek) as key:
            try:
                dek = self._wrapper.unwrap(key, sealed.nonce, sealed.kek.bind(), sealed.wrapped)
            except OSError as refused:
                raise faults.explain_wrap(refused, self._wrapper.name) from None
        if dek is None or len(dek) != DEK_BYTES:
            raise NotMine("a blob of ours that was damaged")
        return Secret(dek)

    def _prove(self, blob: bytes, dek: Secret) -> None:
        """Raises HardwareGone when what was just sealed does not come back."""
        try:
            opened = self.unseal(blob)
        except NotMine as refused:
            raise HardwareGone("the kernel does not open what it has just sealed", detail=str(refused)) from None
        if opened != dek:
            raise HardwareGone("the kernel opens a key other than the one it has just sealed")

    def _make_tpm_blob(self, tpm: "TpmRoot") -> KekBlob:
        digits = tpm.seal(Secret(secrets.token_bytes(KEK_BYTES))).hex().encode()
        if len(digits) > KEK_DIGITS_MAX:
            raise HardwareGone(f"this TPM's sealed objects are too large: {len(digits)} digits, {KEK_DIGITS_MAX} fit")
        return KekBlob(self.source, digits)

    def _read(self, key: HeldKey) -> bytes:
        try:
            digits = self._keys.read(key.serial)
        except OSError as refused:
            raise faults.explain_call(refused, "reading a trusted key's blob") from None
        if not has_form(self.source, faults.read_digits(digits)):
            raise HardwareGone("the kernel's trusted keys changed their form: another source than at the start")
        return digits

    @contextmanager
    def _loaded(self, kek: KekBlob) -> Iterator[HeldKey]:
        """The key of this blob in a fresh ring. Raises NotMine when it does not open here."""
        if self._tpm is not None:
            self._tpm.prepare()
        with self._held(b"load " + kek.digits, kek) as key:
            if self._tpm is not None:
                self._tpm.settle()
            yield key

    @contextmanager
    def _held(self, payload: bytes, kek: KekBlob | None = None) -> Iterator[HeldKey]:
        """Tells the kernel's refusal of the key from whatever the work with it raises."""
        with ExitStack() as stack:
            try:
                key = stack.enter_context(self._rings.hold(_TYPE, payload))
            except OSError as refused:
                raise self._explain(refused, kek) from None
            yield key

    def _explain(self, refused: OSError, kek: KekBlob | None) -> MpError:
        if kek is None:
            return faults.explain_call(refused, "making a trusted key")
        cause = faults.explain_load(refused, self.source.word)
        if self._tpm is not None and isinstance(cause, NotMine):
            return self._tpm.explain(bytes.fromhex(kek.digits.decode()))
        return cause

    def _wrap(self, key: HeldKey, nonce: bytes, kek: KekBlob, dek: Secret) -> bytes:
        try:
            return self._wrapper.wrap(key, nonce, kek.bind(), dek.reveal())
        except OSError as refused:
            raise faults.explain_wrap(refused, self._wrapper.name) from None
