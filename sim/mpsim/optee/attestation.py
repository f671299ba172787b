"""OP-TEE's attestation pseudo-TA (core/pta/attestation.c, lib/libutee/include/pta_attestation.h).

The key is made at the first command that needs it and kept in secure storage, which is files that tee-supplicant
carries: without tee-supplicant the first command of a boot waits, and after a reflash of the storage there is another
key. Signed is SHA-256(nonce || hash), by RSASSA-PSS with MGF1 and SHA-256 and a salt of 32 bytes; the hash, 32 bytes,
stands before the signature in the same buffer.
"""

import hashlib
import time
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from mpsim import storage
from mpsim.optee.gp import Kind, Param, Result, TeeRefusal, Wait, require_kinds
from mpsim.optee.scenario import Scenario

KEY_BITS: Final = 3072
"""CFG_ATTESTATION_PTA_KEY_SIZE."""
EXPONENT: Final = 65537
SALT_BYTES: Final = 32
HASH_BYTES: Final = 32
UUID_BYTES: Final = 16
PS256: Final = 0x7041_4930
"""TEE_ALG_RSASSA_PKCS1_PSS_MGF1_SHA256."""

GET_PUBKEY: Final = 0
GET_TA_SHDR_DIGEST: Final = 1
HASH_TA_MEMORY: Final = 2
HASH_TEE_MEMORY: Final = 3


def storage_file(chip: Path) -> Path:
    """Where the key lies: the secure storage of this board's OP-TEE."""
    return chip / "tee-storage" / "attestation-key.der"


def reflash_storage(chip: Path) -> None:
    """An image over the partition of the secure storage: every key kept there is gone."""
    storage_file(chip).unlink(missing_ok=True)


def hash_of_build(build: str) -> bytes:
    """Text and read-only data of an OP-TEE release, hashed."""
    return hashlib.sha256(b"mpsim optee " + build.encode()).digest()


class KeyStore:
    """The attestation key of one boot: loaded once, then held in memory.

    As in OP-TEE, a key that could not be stored stays in memory all the same: that command fails, the next does not.
    """

    def __init__(self, chip: Path) -> None:
        self._path = storage_file(chip)
        self._key: rsa.RSAPrivateKey | None = None

    def reach(self, scenario: Scenario, wait_for_supplicant: Wait) -> rsa.RSAPrivateKey:
        """Load, or make and store. Raises TeeRefusal."""
        if self._key is None:
            wait_for_supplicant()
            self._key = self._load(scenario.storage)
        if self._key is None:
            time.sleep(scenario.key_making_s)
            self._key = rsa.generate_private_key(EXPONENT, KEY_BITS)
            if scenario.storage == "full":
                raise TeeRefusal(Result.STORAGE_NO_SPACE)
            put_key(self._path.parents[1], self._key)
        return self._key

    def _load(self, state: str) -> rsa.RSAPrivateKey | None:
        if not self._path.exists():
            return None
        if state == "damaged":
            self._path.unlink()
            raise TeeRefusal(Result.CORRUPT_OBJECT)
        key = serialization.load_der_private_key(storage.get(self._path), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key


def put_key(chip: Path, key: rsa.RSAPrivateKey) -> None:
    """Store it, as an OP-TEE of another key size would have."""
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    storage_file(chip).parent.mkdir(exist_ok=True)
    storage.put(storage_file(chip), key.private_bytes(*form))


class AttestationPta:
    """Commands 0, 1 and 3 for Linux; 2 is for a TA that asks about itself."""

    def __init__(self, keys: KeyStore, scenario: Scenario, wait_for_supplicant: Wait) -> None:
        self._keys = keys
        self._scenario = scenario
        self._wait = wait_for_supplicant

    def open(self) -> None:
        """Anyone may."""

    def invoke(self, command: int, params: list[Param]) -> None:
        if command == GET_PUBKEY:
            require_kinds(params, Kind.MEMREF_OUTPUT, Kind.MEMREF_OUTPUT, Kind.VALUE_OUTPUT)
            self._export(*params[:3])
        elif command == GET_TA_SHDR_DIGEST:
            require_kinds(params, Kind.MEMREF_INPUT, Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT)
            if params[0].room != UUID_BYTES:
                raise TeeRefusal(Result.BAD_PARAMETERS)
            self._sign(params[1], params[2], params[0])
        elif command == HASH_TA_MEMORY:
            require_kinds(params, Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT)
            raise TeeRefusal(Result.ACCESS_DENIED if params[0].room else Result.BAD_PARAMETERS)
        elif command == HASH_TEE_MEMORY:
            require_kinds(params, Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT)
            self._sign(params[0], params[1], None)
        else:
            raise TeeRefusal(Result.BAD_PARAMETERS)

    def spoil(self, command: int, params: list[Param]) -> None:
        """Nothing: no buffer is cleared first."""

    def _export(self, exponent: Param, modulus: Param, algorithm: Param) -> None:
        """Both sizes are told even where only one buffer is too small."""
        numbers = self._keys.reach(self._scenario, self._wait).public_key().public_numbers()
        short = False
        for param, number in ((exponent, numbers.e), (modulus, numbers.n)):
            content = number.to_bytes((number.bit_length() + 7) // 8, "big")
            param.size = len(content)
            if param.room >= len(content):
                param.write(content)
            else:
                short = True
        algorithm.a = 0 if self._scenario.attestation == "other" else PS256
        if short:
            raise TeeRefusal(Result.SHORT_BUFFER)

    def _sign(self, nonce: Param, output: Param, uuid: Param | None) -> None:
        if nonce.memory is None or not nonce.room or (output.memory is None and output.room):
            raise TeeRefusal(Result.BAD_PARAMETERS)
        key = self._keys.reach(self._scenario, self._wait)
        output.size = HASH_BYTES + key.key_size // 8
        if output.room < output.size:
            raise TeeRefusal(Result.SHORT_BUFFER)
        measured = hash_of_build(self._scenario.build) if uuid is None else self._hash_of_ta(uuid.read())
        message = b"another message" if self._scenario.attestation == "false" else nonce.read()
        signed = hashlib.sha256(message + measured).digest()
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), SALT_BYTES)
        output.write(measured + key.sign(signed, scheme, utils.Prehashed(hashes.SHA256())))
        output.size -= self._scenario.attestation == "short"

    def _hash_of_ta(self, uuid: bytes) -> bytes:
        """The TA is looked for where tee-supplicant has it; its UUID comes in the secure world's own byte order."""
        self._wait()
        if str(UUID(bytes_le=uuid)) not in self._scenario.applications:
            raise TeeRefusal(Result.ITEM_NOT_FOUND)
        return hashlib.sha256(b"mpsim ta " + uuid).digest()
