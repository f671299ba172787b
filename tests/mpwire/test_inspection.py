"""What an operator is shown: all of a message, nothing of a secret, and never a line that the bytes did not earn."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire.codec import decode, encode
from mpwire.errors import Malformed
from mpwire.inspection import HEADERS, INSPECTED_MAX_BYTES, describe_message, inspect_message
from mpwire.messages.bundle import BUNDLE, BUNDLE_RECEIPT
from mpwire.messages.eat import CLAIMS
from mpwire.messages.plain import HELLO
from tests.vectors.format import Vector, load, read_bytes

GOLDEN = {vector["name"]: read_bytes(vector["bytes"]) for vector in load("golden.json")}
SHOWN = {name: raw for name, raw in GOLDEN.items() if not name.startswith("contents")}
BUNDLES = {vector["name"]: vector for vector in load("bundles.json")}
MADE = [name for name, one in BUNDLES.items() if one["message"] == "bundle-file" and one["kind"] in ("ok", "trust")]
OUTPUT_MAX = 20
"""Characters printed at most for one byte of message, and as many KiB beside that."""


def names_of(tree: dict[str, Any]) -> set[str]:
    return {tree["name"]}.union(*(names_of(one) for one in tree.get("inside", [])))


@pytest.mark.parametrize("name", SHOWN)
def test_every_message_is_shown_and_is_json(name: str) -> None:
    text, tree = inspect_message(SHOWN[name]), describe_message(SHOWN[name])
    assert json.loads(json.dumps(tree)) == tree
    assert len(text) < OUTPUT_MAX * (len(SHOWN[name]) + 1024)
    assert text.startswith(f"{tree['name']} = {len(SHOWN[name])} bytes, SHA-256 ")


def test_a_proof_is_shown_down_to_its_claims() -> None:
    shown = names_of(describe_message(GOLDEN["proof-tpm"]))
    assert {"evidence", "eat", "hello", "challenge", "TPMS_ATTEST", "pcrs", "credential", "activation"} <= shown
    assert {field.name for field in CLAIMS.fields} <= shown
    assert {field.name for field in HELLO.fields if field.name != "line"} <= shown


def test_a_closed_is_shown_with_its_entry_head_and_chain() -> None:
    shown = names_of(describe_message(GOLDEN["closed"]))
    assert {"entry", "head", "issuer-certificate", "path", "root", "signature"} <= shown


def test_every_line_carries_the_words_of_the_table() -> None:
    text = inspect_message(GOLDEN["hello-mp"])
    for field in HELLO.fields:
        assert field.name == "line" or field.note in text


def test_the_grant_shows_its_ciphertext_by_length_only() -> None:
    item: Any = decode(GOLDEN["grant"])
    payload: Any = decode(item.value[2])
    text = inspect_message(GOLDEN["grant"])
    assert payload[9].hex()[:32] not in text and f"{len(payload[9])} bytes" in text


def test_an_escrowed_value_is_shown_by_length_only() -> None:
    item: Any = decode(GOLDEN["receipt-with-everything"])
    payload: Any = decode(item.value[2])
    (_, sealed), *_ = payload[9].values()
    text = inspect_message(GOLDEN["receipt-with-everything"])
    assert sealed.hex() not in text and f"disk-key: {len(sealed)} bytes" in text


@pytest.mark.parametrize("name", ["contents", "contents-with-everything"])
def test_an_opened_grant_is_not_printed(name: str) -> None:
    """T: an operator pastes the plain text of a Grant into a ticket."""
    with pytest.raises(Malformed) as caught:
        inspect_message(GOLDEN[name])
    assert "neither a message" in str(caught.value)


def bytes_of(name: str) -> bytes:
    """Of a vector of bundles.json; a row of a receipts file with its length before it."""
    raw = read_bytes(BUNDLES[name]["bytes"])
    return len(raw).to_bytes(4, "big") + raw if BUNDLES[name]["message"] == "receipts-row" else raw


@pytest.mark.parametrize("name", MADE)
def test_every_bundle_is_shown_by_its_manifest_whatever_stands_behind(name: str) -> None:
    raw = bytes_of(name)
    text, tree = inspect_message(raw), describe_message(raw)
    assert json.loads(json.dumps(tree)) == tree and tree["name"] == "bundle-file"
    shown = names_of(tree)
    assert {field.name for field in BUNDLE.fields if field.required} <= shown
    head = 12 + int.from_bytes(raw[8:12], "big")
    assert inspect_message(raw[:head]) == text == inspect_message(raw + bytes(INSPECTED_MAX_BYTES))


def test_a_bundle_shows_each_component_with_its_place_and_nothing_of_it() -> None:
    vector = BUNDLES["first loading with every kind of component"]
    text = inspect_message(bytes_of(str(vector["name"])))
    assert "update-owner = 130 bytes from byte 1303" in text and "uid = 0123456789abcdef" in text
    for secret in (
        vector["prk"],
        vector["mpk"],
        vector["k1"],
        vector["kek"],
        *(one["key"] for one in vector["components"]),
    ):
        assert secret not in text


def test_a_receipts_file_is_shown_receipt_by_receipt() -> None:
    raw = bytes_of("receipt") + bytes_of("receipt signed by another key") + bytes_of("receipt")
    text, tree = inspect_message(raw), describe_message(raw)
    assert [one["name"] for one in tree["inside"]] == ["receipt 1", "receipt 2", "receipt 3"]
    assert {field.name for field in BUNDLE_RECEIPT.fields} <= names_of(tree)
    assert "MAC = 32 bytes" in text and raw[-32:].hex() not in text


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 40, -1])
def test_a_torn_receipts_file_is_named_not_printed(cut: int) -> None:
    whole = bytes_of("receipt")
    with pytest.raises(Malformed, match="receipts-file"):
        inspect_message(whole + whole[:cut])


@pytest.mark.parametrize("name", ["update-key", "bundle-policy"])
def test_the_plain_text_of_a_component_is_not_printed(name: str) -> None:
    """T-722 Careless print: an operator pastes an update key into a ticket."""
    with pytest.raises(Malformed) as caught:
        inspect_message(bytes_of(name))
    assert not any(bytes_of(name)[at : at + 4].hex() in str(caught.value) for at in range(len(bytes_of(name)) - 3))


@pytest.mark.parametrize(
    "name",
    [name for name, one in BUNDLES.items() if one["kind"] == "structure" or one["kind"] == "encoding"],
)
def test_a_broken_bundle_or_receipt_is_named_not_printed(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        inspect_message(bytes_of(name))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def refused(vector: Vector) -> bool:
    return vector["message"] not in ("item", "key", "contents", "eat-claims")


@pytest.mark.parametrize(
    "vector",
    [one for one in [*load("structure.json"), *load("cose.json")] if refused(one)],
    ids=lambda vector: str(vector["name"]),
)
def test_a_broken_message_is_named_not_printed(vector: Vector) -> None:
    with pytest.raises(Malformed) as caught:
        inspect_message(read_bytes(vector["bytes"]))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_the_place_of_a_nested_fault_is_named() -> None:
    item: Any = decode(GOLDEN["proof-mp"])
    hello: Any = decode(item[3])
    item[3] = encode({**hello, 3: b"short"})
    with pytest.raises(Malformed, match=r"^proof\.hello: hello\.random: not a byte string"):
        inspect_message(encode(item))


def test_a_message_longer_than_any_is_not_read() -> None:
    with pytest.raises(Malformed, match="longer than"):
        inspect_message(bytes(2_101_249))


def test_no_header_is_shown_that_has_no_words() -> None:
    assert all(name and note for name, _, note in HEADERS.values())


@given(st.binary(max_size=200))
def test_strangers_bytes_raise_one_error_or_print(raw: bytes) -> None:
    try:
        assert inspect_message(raw).replace("\n", "").isprintable()
    except Malformed as error:
        assert str(error).isprintable()


@given(st.sampled_from(sorted([*SHOWN, *MADE, "receipt"])), st.data())
def test_one_changed_byte_raises_one_error_or_prints(name: str, data: st.DataObject) -> None:
    raw = bytearray(SHOWN[name] if name in SHOWN else bytes_of(name))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert inspect_message(bytes(raw)).replace("\n", "").isprintable()
    except Malformed as error:
        assert str(error).isprintable()
