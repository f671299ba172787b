"""imports.json: import lists and every way to spoil one (python -m tests.vectors.imports).

The issuer of these vectors is of realm lab and trusts one signer, the fixed key "import-signer" (world.py), whose point
stands in every vector. `keys` are the key ids that a good list registers.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from mpwire import labels, mp, optee, registry, tpm2
from mpwire.codec import Tag, decode, encode
from mpwire.cose import thumbprint, write_sign1
from mpwire.limits import IMPORT_RECORDS_MAX
from tests.vectors import rsa, world
from tests.vectors.format import HERE, Vector, render, write_bytes

FILE: Final = "imports.json"
SIGNER: Final = world.FixedKey("import-signer")
STRANGER: Final = world.FixedKey("import-stranger")
SEQUENCE_MAX: Final = 2**63 - 1
MP_KEY: Final = world.FixedKey("import-mp").public_key()[1:]
EK_NAME: Final = tpm2.make_name(world.EK_PUBLIC)
MP: Final[dict[int, Any]] = {1: "mp", 2: MP_KEY, 3: "silicon", 4: "sign", 5: "class"}
TPM: Final[dict[int, Any]] = {1: "tpm", 2: EK_NAME, 3: "silicon"}
OPTEE: Final[dict[int, Any]] = {1: "optee", 2: rsa.OPTEE.public, 3: "silicon"}
HEADERS: Final[dict[int, object]] = {
    registry.HEADER_ALG: registry.ALG_ES256,
    registry.HEADER_KID: thumbprint(SIGNER.public_key()),
    registry.HEADER_TYP: labels.TYP_IMPORT,
}


def seal(payload: object, headers: dict[int, object] = HEADERS, *, by: world.FixedKey = SIGNER) -> bytes:
    """Signed, whatever it is."""
    return write_sign1(headers, encode(payload), labels.AAD_IMPORT, by.sign)


def payload(records: Sequence[object], realm: str = world.REALM, sequence: object = 1) -> dict[int, object]:
    """An import-list map."""
    return {0: 1, 1: realm, 2: sequence, 3: list(records)}


def _without(record: dict[int, Any], key: int) -> dict[int, Any]:
    return {name: value for name, value in record.items() if name != key}


def _good() -> Iterator[tuple[str, list[bytes], bytes]]:
    ids = {"mp": mp.key_id(b"\x04" + MP_KEY), "tpm": EK_NAME, "optee": optee.key_id(rsa.OPTEE.public)}
    yield "an MP key", [ids["mp"]], seal(payload([MP]))
    every = [{**MP, 6: "imx8mp"}, {**TPM, 6: "SLB 9672"}, {**OPTEE, 6: "imx93"}]
    yield "every kind with its part", list(ids.values()), seal(payload(every))
    yield "simulated test key", [ids["mp"]], seal(payload([{**MP, 3: "simulated", 5: "test"}]))
    yield "highest number", [ids["tpm"]], seal(payload([TPM], sequence=SEQUENCE_MAX))


def _broken() -> Iterator[tuple[str, str, bytes]]:
    """(name, rule, bytes): what a schema sees as well."""
    records = "import-list.records"
    yield "no record", f"{records}: not an array of 1 to 4096", seal(payload([]))
    yield "number 0", "import-list.sequence: not an integer of 1 to", seal(payload([TPM], sequence=0))
    yield "number of text", "import-list.sequence: not an integer of 1 to", seal(payload([TPM], sequence="1"))
    yield "realm of nobody", "import-list.realm: not one of", seal(payload([TPM], realm="field"))
    for key in (0, 1, 2, 3):
        yield f"list without key {key}", f"import-list: key {key} is missing", seal(_without(payload([TPM]), key))
    yield "list of version 2", "import-list: key 0 is not 1", seal({**payload([TPM]), 0: 2})
    yield "list with a key more", "import-list: key 4 is not known", seal({**payload([TPM]), 4: 0})
    for key in (1, 2, 3):
        yield f"record without key {key}", f"{records}: key {key} is missing", seal(payload([_without(TPM, key)]))
    yield "record with a key more", f"{records}: key 7 is not known", seal(payload([{**TPM, 7: 0}]))
    yield "record of a card", f"{records}.kind: not one of", seal(payload([{**TPM, 1: "card"}]))
    yield "key of 33 bytes", f"{records}.key: not a byte string of 34 to 422", seal(payload([{**TPM, 2: bytes(33)}]))
    yield (
        "key of 423 bytes",
        f"{records}.key: not a byte string of 34 to 422",
        seal(payload([{**OPTEE, 2: bytes(423)}])),
    )
    yield "origin unheard of", f"{records}.origin: not one of", seal(payload([{**TPM, 3: "found"}]))
    yield "mp_use unheard of", f"{records}.mp_use: not one of", seal(payload([{**MP, 4: "both"}]))
    yield "use unheard of", f"{records}.use: not one of", seal(payload([{**MP, 5: "both"}]))
    yield "part without a letter", f"{records}.part: not a printable text", seal(payload([{**TPM, 6: ""}]))
    yield "part of 65 bytes", f"{records}.part: not a printable text", seal(payload([{**TPM, 6: "x" * 65}]))
    yield "typ of a trust update", "cose-typ", seal(payload([TPM]), {**HEADERS, 16: labels.TYP_TRUST_UPDATE})
    yield "another algorithm", "cose-alg", seal(payload([TPM]), {**HEADERS, 1: registry.ALG_MP_ES256})
    yield "signer left out", "cose-header", seal(payload([TPM]), {key: HEADERS[key] for key in HEADERS if key != 4})
    short = {**HEADERS, registry.HEADER_KID: bytes(31)}
    yield "signer of 31 bytes", "cose-header", seal(payload([TPM]), short)
    yield "a header more", "cose-header", seal(payload([TPM]), {**HEADERS, registry.HEADER_PROFILE: "raw"})


def _unfit() -> Iterator[tuple[str, str, bytes]]:
    """(name, rule, bytes): well formed and signed, and not what its kind needs. A schema cannot see these."""
    whole = "import-record: an MP key has 64 bytes, mp_use and use"
    yield "MP key without mp_use", f"record 1: {whole}", seal(payload([_without(MP, 4)]))
    yield "MP key without use", f"record 2: {whole}", seal(payload([TPM, _without(MP, 5)]))
    yield "MP key with its 04", f"record 1: {whole}", seal(payload([{**MP, 2: b"\x04" + MP_KEY}]))
    yield "MP key off the curve", "record 1: p256-point", seal(payload([{**MP, 2: bytes(64)}]))
    alone = "import-record: mp_use and use are for MP keys alone"
    yield "EK with mp_use", f"record 1: {alone}", seal(payload([{**TPM, 4: "sign"}]))
    yield "attestation key with use", f"record 1: {alone}", seal(payload([{**OPTEE, 5: "class"}]))
    name = "record 1: import-record: not the Name of an EK"
    yield "EK Name of SHA-384", name, seal(payload([{**TPM, 2: b"\x00\x0c" + bytes(48)}]))
    yield "EK Name of another algorithm", name, seal(payload([{**TPM, 2: b"\x00\x04" + bytes(32)}]))
    yield "attestation key that is a Name", "record 1: optee-key", seal(payload([{**OPTEE, 2: EK_NAME}]))
    twice = "record 2: import-twice"
    yield "record twice", twice, seal(payload([MP, MP]))
    yield "key twice, once as a secret", twice, seal(payload([MP, {**MP, 4: "secret"}]))
    yield "bytes behind it", "trailing-bytes", seal(payload([TPM])) + b"\0"


def _untrusted() -> Iterator[tuple[str, str, bytes]]:
    """(name, rule, bytes): somebody else's word, or for somebody else."""
    good: Any = decode(seal(payload([TPM])))
    protected, beside, inner, signature = good.value
    named = {**HEADERS, registry.HEADER_KID: thumbprint(STRANGER.public_key())}
    yield "signed by a stranger", "import-signer", seal(payload([TPM]), named, by=STRANGER)
    yield "stranger in the signer's name", "import-signature", seal(payload([TPM]), by=STRANGER)
    other = encode(payload([{**TPM, 2: EK_NAME[:-1] + bytes([EK_NAME[-1] ^ 1])}]))
    yield "one key exchanged", "import-signature", encode(Tag(18, [protected, beside, other, signature]))
    added = encode(payload([TPM, MP]))
    yield "one key added", "import-signature", encode(Tag(18, [protected, beside, added, signature]))
    later = encode(payload([TPM], sequence=2))
    yield "number raised", "import-signature", encode(Tag(18, [protected, beside, later, signature]))
    as_update = write_sign1(HEADERS, inner, labels.AAD_TRUST_UPDATE, SIGNER.sign)
    yield "signed as a trust update", "import-signature", as_update
    yield "list of another realm", "import-realm", seal(payload([TPM], realm="production"))
    yield "MP key that is a secret", "import-secret", seal(payload([TPM, {**MP, 4: "secret"}]))


def vectors() -> list[Vector]:
    """All of them."""
    common = {"message": "import-list", "signer": SIGNER.public_key().hex()}
    made: list[Vector] = [
        {"name": name, "kind": "ok", "rule": "ok", **common, "keys": [one.hex() for one in ids], "bytes": raw.hex()}
        for name, ids, raw in _good()
    ]
    for kind, spoilt in (("structure", _broken()), ("encoding", _unfit()), ("trust", _untrusted())):
        made += [
            {"name": name, "kind": kind, "rule": rule, **common, "bytes": write_bytes(raw)}
            for name, rule, raw in spoilt
        ]
    return [*made, _too_many(common)]


def _too_many(common: dict[str, Any]) -> Vector:
    """One record too many, spelled as one record repeated."""
    row, count = encode(TPM), IMPORT_RECORDS_MAX + 1
    raw = seal(payload([TPM] * count))
    head, _, rest = raw.partition(row)
    told = [head.hex(), [row.hex(), count], rest[(count - 1) * len(row) :].hex()]
    rule = "import-list.records: not an array of 1 to 4096"
    return {"name": "4097 records", "kind": "structure", "rule": rule, **common, "bytes": told}


def main() -> None:
    """Write the file."""
    (HERE / FILE).write_text(render(vectors()))


if __name__ == "__main__":
    main()
