"""Import lists: which attester keys are the OEM's, signed by a key that never was on a server (docs/wire.md 5.5).

Pure: bytes, realm and pinned signers come as arguments. Whether the sequence number rises, the ledger knows (Office).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson
from mpserver.keyrecords import NOT_REGISTERED, from_import_record, to_import_record
from mpwire import labels, registry
from mpwire.cose import read_sign1, thumbprint, write_sign1
from mpwire.errors import Malformed
from mpwire.limits import IMPORT_MAX_BYTES, IMPORT_RECORDS_MAX
from mpwire.messages.issuer import IMPORT_LIST, ImportList
from mpwire.p256 import SoftKey
from mpwire.trust import ES256_ONLY, verify_named

FIRST_BYTE: Final = b"\xd2"
"""Of a tagged COSE_Sign1; no JSON text begins so."""
THUMBPRINT_BYTES: Final = 32
_KID: Final = frozenset({registry.HEADER_KID})


@dataclass(frozen=True, slots=True)
class SignedKeys:
    """A list whose signature held."""

    signer: bytes
    """Thumbprint of the pinned key."""
    sequence: int
    digest: bytes
    """SHA-256 of the list as it was handed over."""
    keys: tuple[RegisteredKey, ...]


def write_list(realm: str, sequence: int, keys: Sequence[RegisteredKey], signer: SoftKey) -> bytes:
    """The list, signed. Raises Malformed for what no server would read."""
    if not 1 <= len(keys) <= IMPORT_RECORDS_MAX:
        raise Malformed(f"import-list: 1 to {IMPORT_RECORDS_MAX} records, not {len(keys)}: make several lists")
    payload = IMPORT_LIST.encode(ImportList(realm, sequence, tuple(to_import_record(key) for key in keys)))
    headers = {
        registry.HEADER_ALG: registry.ALG_ES256,
        registry.HEADER_KID: thumbprint(signer.public_key()),
        registry.HEADER_TYP: labels.TYP_IMPORT,
    }
    raw = write_sign1(headers, payload, labels.AAD_IMPORT, signer.sign)
    read_list(raw, realm, {thumbprint(signer.public_key()): signer.public_key()})
    return raw


def read_list(raw: bytes, realm: str, signers: Mapping[bytes, bytes]) -> SignedKeys:
    """A list by one of `signers` (point by thumbprint) for this realm: the steps of docs/wire.md 5.5 but the last.

    Raises Malformed, Unauthentic("import-signature"), and NeedsPerson naming `import-signer`, `import-realm` or
    `import-secret`.
    """
    if len(raw) > IMPORT_MAX_BYTES:
        raise Malformed(f"import-list: longer than {IMPORT_MAX_BYTES} bytes")
    envelope = read_sign1(raw, typ=labels.TYP_IMPORT, algs=ES256_ONLY, protected_allowed=_KID)
    signer = envelope.headers.get(registry.HEADER_KID)
    if not isinstance(signer, bytes) or len(signer) != THUMBPRINT_BYTES:
        raise Malformed("cose-header")
    if signer not in signers:
        raise NeedsPerson(
            f"import-signer: the list names signer {signer.hex()}, whom this server does not trust;"
            " `mpserver key signers` shows whom it does"
        )
    said = "import-signature: changed after it was signed, or signed by another key"
    verify_named(envelope, signers[signer], labels.AAD_IMPORT, said)
    told = IMPORT_LIST.decode(envelope.payload, IMPORT_MAX_BYTES)
    if told.realm != realm:
        raise NeedsPerson(f"import-realm: the list is for realm {told.realm}, this server is {realm}")
    return SignedKeys(signer, told.sequence, sha256(raw).digest(), _read_keys(told))


def _read_keys(told: ImportList) -> tuple[RegisteredKey, ...]:
    keys: dict[bytes, RegisteredKey] = {}
    for place, record in enumerate(told.records, 1):
        try:
            key = from_import_record(record)
        except Malformed as error:
            raise Malformed(f"record {place}: {error}") from error
        if key.key_id in keys:
            raise Malformed(f"record {place}: import-twice: key {key.key_id.hex()} stands in the list before")
        keys[key.key_id] = key
    if any(key.mp_use == "secret" for key in keys.values()):
        raise NeedsPerson(f"import-secret: the list has an MP key of mp_use secret: {NOT_REGISTERED}")
    return tuple(keys.values())
