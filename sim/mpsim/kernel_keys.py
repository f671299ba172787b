"""A kernel with trusted keys over a simulated CAAM, TEE or DCP: the calls of hal/caam's port, with Linux's errnos.

What it imitates was read in security/keys/trusted-keys and drivers/crypto/caam of Linux, and not seen on such parts:
the forms of the blobs, one source per boot, the errno of each refusal, the test key of an open part and its line in
the log.
"""

import errno
import hmac
import os
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

SESSION: Final = -3
_TEST_KEY: Final = sha256(b"the same on every open part").digest()
_OVERHEAD: Final[Mapping[str, int]] = {"caam": 48, "tee": 33, "dcp": 53}
_REFUSAL: Final[Mapping[str, int]] = {"caam": errno.EBADMSG, "tee": errno.EFAULT, "dcp": errno.EBADMSG}
_LEAST, _MOST = 32, 128
"""Bytes of a trusted key's payload (include/keys/trusted-type.h)."""


class _Held(Protocol):
    """A key as the agent's wrapper is given it."""

    @property
    def serial(self) -> int: ...


class SoftKernel:
    """One boot after the other of one chip: `reboot` forgets every key and keeps the chip's own."""

    def __init__(self, root: Path, source: str | None, *, closed: bool = True) -> None:
        self.source = source
        self.closed = closed
        self.fails_with: int | None = None
        """errno of the next add_key; None: it works."""
        self._chip_key = secrets.token_bytes(32)
        self._log = root / "dev" / "kmsg"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        self.reboot()

    def reboot(self) -> None:
        """Keys and rings live in memory alone."""
        self._rings: dict[int, set[int]] = {SESSION: set()}
        self._keys: dict[int, tuple[str, str, bytes, bytes]] = {}
        self._next = 1000

    @property
    def keys_held(self) -> int:
        """How many keys and rings nobody took away."""
        return len(self._keys) + len(self._rings) - 1

    def join_session(self) -> None:
        """Everything below the old session ring goes with it."""
        self.reboot()

    def add_ring(self, description: str) -> int:
        """A ring below the session's."""
        assert description
        serial = self._number()
        self._rings[serial] = set()
        self._rings[SESSION].add(serial)
        return serial

    def add(self, kind: str, description: str, payload: bytes, ring: int) -> int:
        """add_key of the types `user` and `trusted`."""
        if self.fails_with is not None:
            code, self.fails_with = self.fails_with, None
            raise _refuse(code)
        if kind == "trusted" and self.source is None:
            raise _refuse(errno.ENODEV)
        if any(self._keys[serial][:2] == (kind, description) for serial in self._rings[ring] if serial in self._keys):
            raise _refuse(errno.EPERM)  # an update, which is for migratable keys only
        secret, blob = self._instantiate(payload) if kind == "trusted" else (payload, payload)
        serial = self._number()
        self._keys[serial] = (kind, description, secret, blob)
        self._rings[ring].add(serial)
        return serial

    def read(self, serial: int) -> bytes:
        """The blob in hexadecimal digits."""
        if serial not in self._keys:
            raise _refuse(errno.ENOKEY)
        kind, _, _, blob = self._keys[serial]
        return blob.hex().encode() if kind == "trusted" else blob

    def drop(self, serial: int, ring: int) -> None:
        """Of a key or a ring."""
        self._rings.get(ring, set()).discard(serial)
        self._keys.pop(serial, None)
        for left in self._rings.pop(serial, set()):
            self._keys.pop(left, None)

    def payload(self, serial: int) -> bytes:
        """What only the kernel sees."""
        if serial not in self._keys:
            raise _refuse(errno.ENOKEY)
        return self._keys[serial][2]

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _instantiate(self, payload: bytes) -> tuple[bytes, bytes]:
        verb, _, rest = payload.decode("ascii").partition(" ")
        if self.source == "tpm" and verb == "new":
            raise _refuse(errno.EINVAL)
        try:
            if verb == "new" and _LEAST <= int(rest) <= _MOST:
                secret = secrets.token_bytes(int(rest))
                return secret, self._encapsulate(secret)
            if verb == "load":
                blob = bytes.fromhex(rest)
                return self._open(blob), blob
        except ValueError:
            raise _refuse(errno.EINVAL) from None
        raise _refuse(errno.EINVAL)

    def _encapsulate(self, secret: bytes) -> bytes:
        """Key and nonce fill what the real blob spends on its own key, so that the sizes are right."""
        lead = b"\x01" if self.source == "dcp" else b""
        spent = secrets.token_bytes(_OVERHEAD[self._source()] - 16 - len(lead))
        return lead + spent + AESGCM(self._key(spent)).encrypt(spent[:12], secret, lead)

    def _open(self, blob: bytes) -> bytes:
        source = self._source()
        overhead = _OVERHEAD[source]
        # CAAM's driver subtracts without a look: the agent must never hand it less.
        assert len(blob) >= overhead + _LEAST, "a blob this short takes the kernel down"
        lead, rest = (blob[:1], blob[1:]) if source == "dcp" else (b"", blob)
        spent, sealed = rest[: overhead - 16 - len(lead)], rest[overhead - 16 - len(lead) :]
        try:
            return AESGCM(self._key(spent)).decrypt(spent[:12], sealed, lead)
        except InvalidTag:
            raise _refuse(_REFUSAL[source]) from None

    def _key(self, spent: bytes) -> bytes:
        if self._source() == "caam" and not self.closed:
            with open(self._log, "ab") as log:
                log.write(b"4,1,1,-;caam_jr: using insecure test key, enable HAB to use unique device key!\n")
            return hmac.digest(_TEST_KEY, spent, "sha256")
        return hmac.digest(self._chip_key, spent, "sha256")

    def _source(self) -> str:
        assert self.source is not None
        return self.source


class SoftWrapper:
    """AES-CCM with a key of the soft kernel, in place of AF_ALG."""

    name = "soft"

    def __init__(self, kernel: SoftKernel) -> None:
        self._kernel = kernel
        self.fails_with: int | None = None

    def wrap(self, key: _Held, nonce: bytes, aad: bytes, text: bytes) -> bytes:
        """Ciphertext and tag."""
        self._fail()
        return AESCCM(self._kernel.payload(key.serial)).encrypt(nonce, text, aad)

    def unwrap(self, key: _Held, nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
        """The text, or None."""
        self._fail()
        try:
            return AESCCM(self._kernel.payload(key.serial)).decrypt(nonce, sealed, aad)
        except InvalidTag:
            return None

    def _fail(self) -> None:
        if self.fails_with is not None:
            raise _refuse(self.fails_with)


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))
