"""NXP's old way to carry a key to boards: U-Boot `export_key_blob`, earlier `export_ddek_blob` (docs/hardware.md 17).

One AES-256 key, encrypted with AES-256-ECB under SHA-256(X || Y) of the MP public key. Such files are read here, so
that what is in them can go into a bundle; nothing in this project writes one.
"""

from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpserver.errors import LogWrong
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret

FILE_BYTES: Final = 32
"""The length U-Boot decrypts: AES256_KEY_SZ. There is no header, no padding and no check."""
BLACK_BLOB_BYTES: Final = 112
_TAG: Final = bytes.fromhex("4f676154")
"""First bytes of a tagged black blob: 0x5461674f as an Arm core stores it."""
UNPROVEN: Final = (
    "nothing shows that this is what was encrypted: the old format has no authentication, and a changed file or"
    " another key gives another value without a word"
)


def check_old(raw: bytes) -> None:
    """Raises LogWrong for what no `export_key_blob` takes, with what it is instead."""
    if len(raw) == FILE_BYTES:
        return
    if raw.startswith(_TAG) or len(raw) == BLACK_BLOB_BYTES:
        raise LogWrong(
            "a black blob: what export_key_blob made of the old file on one chip, and that chip alone opens it;"
            f" hand over the file that went to the factory, {FILE_BYTES} bytes"
        )
    digits = b"".join(raw.split())
    if len(digits) == 2 * FILE_BYTES and digits.isalnum():
        raise LogWrong("64 digits: the old format is binary; `xxd -r -p` turns digits into bytes")
    raise LogWrong(f"an old file has {FILE_BYTES} bytes and nothing else, this one has {len(raw)}")


def has_equal_halves(raw: bytes) -> bool:
    """ECB shows where two blocks of the plain text are the same: such a key is half as long as it looks."""
    return raw[: FILE_BYTES // 2] == raw[FILE_BYTES // 2 :]


def open_old(raw: bytes, key: HiddenMpKey) -> Secret:
    """The 32 bytes that U-Boot would have got; whether they are right, nothing tells. Raises LogWrong."""
    check_old(raw)
    made = sha256(key.reveal()).digest()
    # ECB is what the old format is: bound to nothing, and a block says where it is repeated.
    opened = Cipher(algorithms.AES(made), modes.ECB()).decryptor()
    return Secret(opened.update(raw) + opened.finalize())
