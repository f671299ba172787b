"""Device keys in the TPM: P-256, wrapped under the storage root, used by TPM2_Sign and TPM2_ECDH_ZGen."""

import hashlib
from typing import Final

from mpagent.hal.ports import Shelf
from mpagent.hal.tpm import templates
from mpagent.hal.tpm.blobs import WrappedObject
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.objects import find_or_make, read_signature
from mpwire import p256
from mpwire.secret import Secret


class TpmKey:
    """One device key; loaded for the length of one call."""

    def __init__(self, chip: Chip, wrapped: WrappedObject) -> None:
        self._chip = chip
        self.wrapped: Final = wrapped

    def public_key(self) -> bytes:
        """From the public area, which the TPM checked when it loaded the key."""
        return templates.point_of(self.wrapped.public)

    def sign(self, message: bytes) -> bytes:
        """TPM2_Sign over SHA-256(message), hashed here: the key is not restricted."""
        tss, digest = self._chip.tss, hashlib.sha256(message).digest()
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.ECDSA)
        scheme.details.any.hashAlg = tss.TPM2_ALG.SHA256
        unproven = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.OWNER)
        with self._chip.loaded(self.wrapped, "loading a device key") as key:
            signature = self._chip.run("signing", lambda esapi: esapi.sign(key, digest, scheme, unproven))
        return read_signature(signature)

    def ecdh(self, peer: bytes) -> Secret:
        """TPM2_ECDH_ZGen; the answer is encrypted on the bus."""
        # Checked here and not left to the TPM: one that takes any point gives away its key piece by piece.
        p256.load_point(peer)
        point = self._chip.tss.TPM2B_ECC_POINT()
        point.point.x, point.point.y = peer[1 : 1 + p256.SCALAR_BYTES], peer[1 + p256.SCALAR_BYTES :]
        with self._chip.loaded(self.wrapped, "loading a device key") as key:
            session = self._chip.private_session(inward=False)
            shared = self._chip.run("agreeing on a secret", lambda esapi: esapi.ecdh_zgen(key, point, session1=session))
        return Secret(bytes(shared.point.x).rjust(p256.SCALAR_BYTES, b"\0"))


class TpmKeyring:
    """Device keys by label, on the Shelf as tpm-key-<label>."""

    def __init__(self, chip: Chip, shelf: Shelf) -> None:
        self._chip = chip
        self._shelf = shelf
        self._found: dict[str, TpmKey] = {}

    def find_or_make(self, label: str) -> TpmKey:
        """See ports.Keyring; a key found once is not read from the Shelf again."""
        if label not in self._found:
            wrapped = find_or_make(self._chip, self._shelf, f"tpm-key-{label}", templates.DEVICE_KEY)
            self._found[label] = TpmKey(self._chip, wrapped)
        return self._found[label]
