"""Records of attester keys: JSON as people and `mpagent evidence` write them, and rows of an import list.

A key is the same RegisteredKey whichever way it came.
"""

import hashlib
import json
from typing import Any, Final

from mpissuer.ports import RegisteredKey
from mpserver.errors import Usage
from mpwire import mp, optee, p256
from mpwire.errors import Malformed
from mpwire.messages.issuer import ImportRecord
from mpwire.ueid import TPM_NAME_BYTES

KEYS_MAX: Final = 10_000
"""Records of one JSON file: some 10 MB, and a transaction of a second or two."""
KEY_FILE_MAX_BYTES: Final = 16_777_216
"""Of a JSON file: 10,000 attestation keys in hexadecimal, with room for spaces."""
PART_MAX: Final = 64
"""Letters of a part's name in a key file; NXP's are shorter than 20."""
NOT_REGISTERED: Final = (
    "the public half of such a key is a secret, and nothing about it is registered; `mpserver mp vault import` takes it"
)
_NAME_ALG: Final = bytes.fromhex("000b")
"""A Name of nameAlg SHA-256 begins so (TPM 2.0 Library, Part 1, section 16)."""


def read_key_records(text: str) -> list[RegisteredKey]:
    """One record, or a JSON list of 1 to KEYS_MAX. Raises Usage naming the record and the field."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Usage(f"key file: not JSON: {error}") from error
    if not isinstance(told, list):
        return [read_key_record(told)]
    if not 1 <= len(told) <= KEYS_MAX:
        raise Usage(f"key file: a list has 1 to {KEYS_MAX} records, this one {len(told)}")
    keys = []
    for place, record in enumerate(told, 1):
        try:
            keys.append(read_key_record(record))
        except Usage as error:
            raise Usage(f"record {place}: {error}") from error
    return keys


def read_key_record(record: object) -> RegisteredKey:
    """A record of `mpsim mp-key`, or {"kind": "tpm", "ek_name": hex} or {"kind": "optee", "public_key": hex} and more.

    Raises Usage naming the field.
    """
    if not isinstance(record, dict):
        raise Usage("key file: not one JSON object")
    origin = record.get("origin")
    if origin not in ("silicon", "simulated"):
        raise Usage('key file: origin must be "silicon" or "simulated"')
    kind = record.get("kind", "mp")
    if kind == "tpm":
        name = _hex(record, "ek_name", TPM_NAME_BYTES)
        return RegisteredKey(key_id=name, kind="tpm", public_key=None, origin=origin, part=_part(record))
    if kind == "optee":
        return _read_optee_record(record, origin)
    if kind != "mp":
        raise Usage('key file: kind must be "mp", "tpm" or "optee"')
    public = _hex(record, "public_key", 64)
    key_id = hashlib.sha256(public).digest()
    if record.get("mp_key_id") not in (None, key_id.hex()):
        raise Usage("key file: mp_key_id is not the SHA-256 of public_key")
    if _one_of(record, "mp_use", "sign", "secret") == "secret":
        raise Usage(f"key file: mp_use is secret: {NOT_REGISTERED}")
    use = _one_of(record, "use", "class", "test")
    return RegisteredKey(key_id, "mp", b"\x04" + public, origin, part=_part(record), use=use)


def _read_optee_record(record: dict[str, Any], origin: str) -> RegisteredKey:
    try:
        public = bytes.fromhex(str(record.get("public_key", "")))
        key_id = optee.key_id(public)
    except (ValueError, Malformed) as error:
        raise Usage(f"key file: public_key is no attestation key of OP-TEE in hexadecimal DER: {error}") from error
    return RegisteredKey(key_id, "optee", public, origin, part=_part(record))


def _one_of(record: dict[str, Any], field: str, default: str, other: str) -> str:
    value = record.get(field, default)
    if value not in (default, other):
        raise Usage(f'key file: {field} must be "{default}" or "{other}"')
    return str(value)


def _part(record: dict[str, Any]) -> str:
    part = record.get("part", "")
    if not isinstance(part, str) or not part.isprintable() or len(part) > PART_MAX:
        raise Usage(f"key file: part must be a printable text of at most {PART_MAX} letters")
    return part


def _hex(record: dict[str, Any], field: str, length: int) -> bytes:
    try:
        value = bytes.fromhex(str(record.get(field, "")))
    except ValueError:
        raise Usage(f"key file: {field} is not hexadecimal") from None
    if len(value) != length:
        raise Usage(f"key file: {field} needs {length} bytes, got {len(value)}")
    return value


def to_import_record(key: RegisteredKey) -> ImportRecord:
    """The row of an import list."""
    part = key.part or None
    if key.kind == "mp":
        assert key.public_key is not None  # an MP key is its point
        return ImportRecord("mp", key.public_key[1:], key.origin, key.mp_use, key.use, part)
    return ImportRecord(key.kind, key.public_key or key.key_id, key.origin, part=part)


def from_import_record(record: ImportRecord) -> RegisteredKey:
    """The key of a row (docs/wire.md 5.5, `import-record`). Raises Malformed: it is not whole for its kind."""
    kind, key, part = record.kind, record.key, record.part or ""
    if kind == "mp":
        if len(key) != p256.POINT_BYTES - 1 or record.mp_use is None or record.use is None:
            raise Malformed("import-record: an MP key has 64 bytes, mp_use and use")
        p256.load_point(b"\x04" + key)
        return RegisteredKey(
            mp.key_id(b"\x04" + key), "mp", b"\x04" + key, record.origin, record.mp_use, part, record.use
        )
    if record.mp_use is not None or record.use is not None:
        raise Malformed("import-record: mp_use and use are for MP keys alone")
    if kind == "tpm":
        if len(key) != TPM_NAME_BYTES or not key.startswith(_NAME_ALG):
            raise Malformed("import-record: not the Name of an EK")
        return RegisteredKey(key, "tpm", None, record.origin, part=part)
    return RegisteredKey(optee.key_id(key), "optee", key, record.origin, part=part)
