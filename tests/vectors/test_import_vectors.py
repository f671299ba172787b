"""imports.json against mpserver.importlist and docs/wire.cddl."""

import pytest

from mpserver.errors import NeedsPerson
from mpserver.importlist import read_list, write_list
from mpserver.keyrecords import from_import_record, to_import_record
from mpwire.cose import thumbprint
from mpwire.errors import Malformed, Unauthentic
from mpwire.inspection import inspect_message
from mpwire.messages.issuer import IMPORT_RECORD
from mpwire.p256 import SoftKey
from tests.vectors.format import HERE, Vector, load, read_bytes
from tests.vectors.test_wire_vectors import ask_schema

VECTORS = load("imports.json")


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    chosen = [vector for vector in VECTORS if vector["kind"] in kinds]
    assert chosen
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def signers_of(vector: Vector) -> dict[bytes, bytes]:
    point = bytes.fromhex(vector["signer"])
    return {thumbprint(point): point}


@of_kind("ok")
def test_list_gives_the_keys_of_the_document(vector: Vector) -> None:
    told = read_list(read_bytes(vector["bytes"]), "lab", signers_of(vector))
    assert [one.key_id.hex() for one in told.keys] == vector["keys"]
    assert told.signer in signers_of(vector) and told.sequence >= 1


@of_kind("ok")
def test_record_read_and_written_again_is_the_same(vector: Vector) -> None:
    for key in read_list(read_bytes(vector["bytes"]), "lab", signers_of(vector)).keys:
        record = to_import_record(key)
        assert from_import_record(IMPORT_RECORD.decode(IMPORT_RECORD.encode(record), 512)) == key


@of_kind("structure", "encoding")
def test_broken_list_is_refused_by_its_rule(vector: Vector) -> None:
    with pytest.raises(Malformed) as caught:
        read_list(read_bytes(vector["bytes"]), "lab", signers_of(vector))
    assert str(caught.value).startswith(vector["rule"])
    assert len(str(caught.value)) < 200


@of_kind("trust")
def test_list_of_somebody_else_is_refused(vector: Vector) -> None:
    """T-370 Stranger: signed by another key, changed after it was signed, or made for another realm."""
    with pytest.raises((Unauthentic, NeedsPerson)) as caught:
        read_list(read_bytes(vector["bytes"]), "lab", signers_of(vector))
    assert str(caught.value).startswith(vector["rule"])


def test_bytes_beyond_the_bound_are_not_parsed() -> None:
    with pytest.raises(Malformed, match="longer than 2101248 bytes"):
        read_list(b"\xd2" * 2_101_249, "lab", {})


@pytest.mark.parametrize("count", [0, 4_097])
def test_no_list_is_written_that_no_server_reads(count: int) -> None:
    vector = next(one for one in VECTORS if one["kind"] == "ok")
    (key,) = read_list(read_bytes(vector["bytes"]), "lab", signers_of(vector)).keys
    with pytest.raises(Malformed, match="1 to 4096 records"):
        write_list("lab", 1, [key] * count, SoftKey.generate())


@of_kind("ok")
def test_print_of_a_list_names_keys_and_shows_none_of_mp(vector: Vector) -> None:
    """T-292 Careless print: an MP public key may be the secret of the non-networked flow."""
    raw = read_bytes(vector["bytes"])
    text = inspect_message(raw)
    for key in read_list(raw, "lab", signers_of(vector)).keys:
        if key.kind == "mp":
            assert key.public_key is not None
            assert key.key_id.hex() in text and key.public_key[1:33].hex() not in text


def test_schema_takes_what_the_reader_takes_and_refuses_broken_structures() -> None:
    answers = {one["name"]: (one["kind"], why) for one, why in zip(VECTORS, ask_schema(VECTORS), strict=True)}
    assert {name: why for name, (kind, why) in answers.items() if kind in ("ok", "trust") and why} == {}
    assert [name for name, (kind, why) in answers.items() if kind == "structure" and why is None] == []


@pytest.mark.ceiling
def test_a_rerun_changes_nothing() -> None:
    from tests.vectors import imports  # deterministic signatures are newer than the floor
    from tests.vectors.format import render

    assert render(imports.vectors()) == (HERE / imports.FILE).read_text()
