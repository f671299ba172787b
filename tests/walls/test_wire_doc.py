"""docs/wire.md says what the code does: its tables are the code's, and every check has its name in it."""

import re

import pytest

from mpwire import codec, cose, registry
from scripts.wire_tables import DOCUMENT, SHAPES, draw_all, fill
from tests.walls.checks import SPEAKING, SPEAKING_OF_BUNDLES, names_of_checks
from tests.walls.rooms import ROOT

TEXT = DOCUMENT.read_text()
ELSEWHERE = {"merkle-consistency", "job-ended"}
"""Names that no peer can bring about: an auditor's check, and the keystore's."""


def test_every_table_is_the_one_in_the_code() -> None:
    assert fill(TEXT) == TEXT, "run: python scripts/wire_tables.py"


def test_a_table_that_drifted_is_found() -> None:
    assert fill(TEXT.replace("device random |", "device entropy |")) == TEXT
    assert TEXT.replace("device random |", "device entropy |") != TEXT


@pytest.mark.parametrize("name", sorted(draw_all()))
def test_every_table_stands_in_the_document_once(name: str) -> None:
    assert TEXT.count(f"<!-- table: {name} -->") == 1


def test_every_id_of_the_registry_has_a_row() -> None:
    listed = draw_all()["registry"]
    ids = [value for name, value in vars(registry).items() if name.startswith(("ALG_", "HEADER_", "CLAIM_"))]
    assert len(ids) > 30
    assert [value for value in ids if f"| {value} |" not in listed] == []


def test_private_ids_are_below_70000_and_used_once() -> None:
    """Two meanings of one number would let one signed thing be read as another."""
    private = [value for value in vars(registry).values() if type(value) is int and value < -256]
    assert private and all(value < -70_000 for value in private)
    assert len(set(private)) == len(private)


@pytest.mark.parametrize("rule", [*codec.RULES, *cose.RULES, "p256-point"])
def test_every_rule_of_the_readers_is_explained(rule: str) -> None:
    assert f"| `{rule}` |" in TEXT


def test_every_check_either_side_can_name_is_in_the_document() -> None:
    names = set().union(*(names_of_checks(path) for path in [*SPEAKING, *SPEAKING_OF_BUNDLES])) - ELSEWHERE
    assert {
        "clone",
        "grant-slots",
        "issuer-delegation",
        "attester-signature",
        "receipt-closed-proof",
        "bundle-payload",
    } <= names
    told = set(re.findall(r"`([a-z0-9-]+)`", TEXT))
    inside = {"tpm-ek", "tpm-ak"}  # details of attester-signature and attester-material, for the log alone
    assert {name for name in names if name not in told and not any(name.startswith(one) for one in inside)} == set()


def test_the_schema_has_every_field_of_every_table() -> None:
    """Keys by rule name; what the values are, the vectors show."""
    schema = (ROOT / "docs/wire.cddl").read_text()
    for title, shape in SHAPES.items():
        if title == "cnf":
            continue  # written in place
        for rule in (f"{title}-claims", f"{title}-payload", title):
            if found := re.search(rf"^{rule} = {{(.*?)^}}", schema, re.DOTALL | re.MULTILINE):
                keys = {int(key) for key in re.findall(r"^  (?:\? )?(-?\d+) =>", found[1], re.MULTILINE)}
                assert keys == {*shape.constants, *(one.key for one in shape.fields)}, title
                break
        else:
            pytest.fail(f"wire.cddl has no rule for {title}")
