"""The chip itself: fuses, secrets nobody can read, what boot latched, and what CAAM computes from them.

Results are those of the hardware through OP-TEE, including its refusals; backend.py turns them into the words of the
ports. State is read afresh on every call, because another process may cycle the power of this board.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from mpagent.hal.ports import LifeCycle
from mpsim import fuses, storage
from mpwire import limits, mp
from mpwire.errors import MpError, Retry
from mpwire.p256 import ORDER, SCALAR_BYTES, SoftKey
from mpwire.secret import Secret

FORMAT: Final = 1
FIRST_GOOD_REVISION: Final = {"imx8mq": "2.1", "imx8mm": "1.0", "imx8mn": "1.0", "imx8mp": "1.0"}
"""OP-TEE takes an i.MX8MQ of minor revision 0 (B0 and before) for one without manufacturing protection."""
MPMR_VALUES: Final = {"zero": mp.MPMR_ZERO, "optee": mp.MPMR_OPTEE}
MASTER_KEY_BYTES: Final = 32
"""OTPMK fuses: random in every chip, readable by CAAM alone."""
BLOB_KEY_BYTES: Final = 32
MAC_BYTES: Final = 16
KEY_BYTES: Final = 32
BLOB_BYTES: Final = BLOB_KEY_BYTES + KEY_BYTES + MAC_BYTES
"""80: what Linux's trusted keys store for a 32-byte key (include/soc/fsl/caam-blob.h)."""
KEY_MODIFIER: Final = b"SECURE_KEY"
"""Fixed by the kernel's trusted-key source caam."""

_FUSED_MP_SECRET: Final = hashlib.sha256(b"mpsim: MANUFACTURE_PROTECTION_KEY fuses").digest()
"""Plays NXP's fuse secret, the same in every simulated chip. Public: nothing made from it protects anything real."""
_TEST_MP_SECRET: Final = b"manufacturing protection"
"""The fixed text OP-TEE feeds to the key generation on an open part."""
_TEST_MASTER_KEY: Final = hashlib.sha256(b"mpsim: CAAM test key of open parts").digest()
"""On an open part CAAM uses a fixed public key in place of the chip's own."""
_CCM_NONCE: Final = bytes(12)
"""Constant, because every blob has a fresh random key."""


class Result(IntEnum):
    """GlobalPlatform result codes that OP-TEE's manufacturing-protection PTA gives."""

    EXCESS_DATA = 0xFFFF_0004
    BAD_PARAMETERS = 0xFFFF_0006
    NOT_SUPPORTED = 0xFFFF_000A


class Refusal(MpError):
    """The secure world answered with something other than success; nothing happened in the chip."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR

    def __init__(self, result: Result, cause: str) -> None:
        super().__init__(cause, detail=f"TEE result {result:#x}")
        self.result = result


class BlobRefused(MpError):
    """CAAM's check value of a blob does not match (kernel: "blob decap job failed")."""

    exit_code: ClassVar[int] = 65
    retry: ClassVar[Retry] = Retry.NEVER


@dataclass(frozen=True, slots=True)
class Make:
    """What never changes about a board: its silicon and its boot firmware."""

    part: str
    revision: str
    """"major.minor", as /sys/devices/soc0/revision prints it."""
    mpmr: str
    """"optee" or "zero": who filled the register in this boot chain."""
    unlock_mfg: bool
    """The CSF of the first image holds [Unlock] Engine=CAAM Features=MFG."""


class Chip:
    """One chip in its folder. Holds no state of its own.

    Raises BoardBroke from every verb when a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_make(self) -> Make:
        """Part and boot firmware."""
        return parse_make(storage.get_json(self.folder / "make.json"), self.folder)

    def read_fuses(self) -> bytes:
        """The bytes of the nvmem file: 1024, or 1536 on an 8MP."""
        path, size = self.folder / "nvmem", fuses.LAYOUTS[self.read_make().part].size_bytes
        content = storage.get(path)
        if len(content) != size:
            raise storage.BoardBroke(f"{path} is damaged: {len(content)} bytes instead of {size}")
        return content

    def boot_is_closed(self) -> bool:
        """The life cycle that the running boot latched (SNVS HPSR)."""
        path = self.folder / "boot.json"
        value = storage.get_json(path)
        if not isinstance(value, dict) or not isinstance(value.get("closed"), bool):
            raise storage.BoardBroke(f"{path} is damaged")
        return bool(value["closed"])

    def life_cycle(self) -> LifeCycle:
        """Fuse and running boot taken together."""
        if not fuses.is_closed(self.read_fuses()):
            return LifeCycle.OPEN
        return LifeCycle.CLOSED if self.boot_is_closed() else LifeCycle.CLOSED_PENDING_REBOOT

    def mp_public_key(self) -> bytes:
        """GET_PUBLIC_KEY: X || Y, 64 bytes. Raises Refusal."""
        return _bare(self._mp_key())

    def mp_sign(self, message: bytes) -> tuple[bytes, bytes]:
        """SIGNATURE_MPMR: (r || s, MPMR). Fresh randomness per call; s is not normalised. Raises Refusal."""
        key = self._mp_key()
        if not message:
            raise Refusal(Result.BAD_PARAMETERS, "the chip signs no empty message")
        if len(message) > limits.MP_MESSAGE_MAX_BYTES:
            raise Refusal(Result.EXCESS_DATA, f"the chip signs at most {limits.MP_MESSAGE_MAX_BYTES} bytes")
        mpmr = MPMR_VALUES[self.read_make().mpmr]
        return key.sign_digest(mp.digest(message, mpmr)), mpmr

    def encapsulate(self, key: bytes) -> bytes:
        """CAAM blob of a 32-byte key: wrapped random blob key, ciphertext, MAC; 80 bytes."""
        blob_key = secrets.token_bytes(BLOB_KEY_BYTES)
        wrapped = Cipher(algorithms.AES(self._wrapping_key()), modes.ECB()).encryptor().update(blob_key)
        return wrapped + AESCCM(blob_key, tag_length=MAC_BYTES).encrypt(_CCM_NONCE, key, None)

    def decapsulate(self, blob: bytes) -> bytes:
        """The 32-byte key again. Raises BlobRefused: another chip, another life cycle, or other bytes."""
        if len(blob) != BLOB_BYTES:
            raise BlobRefused(f"a blob is {BLOB_BYTES} bytes, not {len(blob)}")
        wrapped, sealed = blob[:BLOB_KEY_BYTES], blob[BLOB_KEY_BYTES:]
        blob_key = Cipher(algorithms.AES(self._wrapping_key()), modes.ECB()).decryptor().update(wrapped)
        try:
            return AESCCM(blob_key, tag_length=MAC_BYTES).decrypt(_CCM_NONCE, sealed, None)
        except InvalidTag as error:
            raise BlobRefused("blob decap job failed") from error

    def _mp_key(self) -> SoftKey:
        make = self.read_make()
        if make.part == "imx8mq" and make.revision.endswith(".0"):
            raise Refusal(Result.NOT_SUPPORTED, f"i.MX8MQ revision {make.revision} has no manufacturing protection")
        if not self.boot_is_closed():
            return _test_key()
        if not make.unlock_mfg:
            raise Refusal(Result.NOT_SUPPORTED, "the boot ROM cleared the MP key: the CSF lacks Unlock CAAM MFG")
        return _class_key(make.part, fuses.read_srk_hash(self.read_fuses()))

    def _wrapping_key(self) -> bytes:
        """CAAM's blob key encryption key of the running boot, bound to the key modifier."""
        master = self._read_master_key() if self.boot_is_closed() else _TEST_MASTER_KEY
        return hmac.digest(master, b"mpsim bkek " + KEY_MODIFIER, "sha256")

    def _read_master_key(self) -> bytes:
        path = self.folder / "otpmk"
        key = storage.get(path)
        if len(key) != MASTER_KEY_BYTES:
            raise storage.BoardBroke(f"{path} is damaged: {len(key)} bytes instead of {MASTER_KEY_BYTES}")
        return key


def parse_make(value: Any, folder: Path) -> Make:
    """Read make.json strictly. Raises BoardBroke."""
    damaged = storage.BoardBroke(f"{folder / 'make.json'} is damaged, or made by another version of mpsim")
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise damaged
    try:
        make = Make(**value)
    except TypeError as error:
        raise damaged from error
    known = make.part in fuses.LAYOUTS and make.mpmr in MPMR_VALUES
    if not known or not isinstance(make.revision, str) or not isinstance(make.unlock_mfg, bool):
        raise damaged
    return make


def class_public_key(part: str, srk_hash: bytes) -> bytes:
    """X || Y, 64 bytes, of every closed chip of this part with these SRK fuses."""
    return _bare(_class_key(part, srk_hash))


def test_public_key() -> bytes:
    """X || Y, 64 bytes, of every open chip."""
    return _bare(_test_key())


def _class_key(part: str, srk_hash: bytes) -> SoftKey:
    return _derive(_FUSED_MP_SECRET, part.encode() + b"\0" + srk_hash)


def _test_key() -> SoftKey:
    return _derive(_TEST_MP_SECRET, b"")


def _derive(key: bytes, context: bytes) -> SoftKey:
    """A scalar of 1 to n - 1 from 512 bits, so that no value is likelier than another."""
    wide = int.from_bytes(hmac.digest(key, b"mpsim mp key\0" + context, "sha512"), "big")
    return SoftKey.from_scalar(Secret((wide % (ORDER - 1) + 1).to_bytes(SCALAR_BYTES, "big")))


def _bare(key: SoftKey) -> bytes:
    """X || Y as the chip gives it, without the 0x04."""
    return key.public_key()[1:]
