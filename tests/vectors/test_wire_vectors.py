"""The vectors are the contract: golden ones are read, every other one is refused by the rule it names."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mpwire import codec, cose, labels
from mpwire.errors import Malformed, PeerBroke
from mpwire.trust import Trust, apply_trust_update, read_head, read_signed, verify_signed
from tests.vectors.format import HERE, READERS, Vector, load, read_bytes

ROOT = Path(__file__).parents[2]
CHECKER = ROOT / "out/env/zcbor/bin/python"
WORLD: dict[str, Any] = json.loads((HERE / "world.json").read_text())
STRUCTURAL = [*load("structure.json"), *load("cose.json")]


def by_name(vectors: list[Vector]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


@by_name(load("golden.json"))
def test_golden_message_is_read(vector: Vector) -> None:
    assert READERS[vector["message"]](read_bytes(vector["bytes"])) is not None


@by_name([*STRUCTURAL, *load("decoder.json")])
def test_broken_message_is_refused_by_its_rule(vector: Vector) -> None:
    with pytest.raises(Malformed) as caught:
        READERS[vector["message"]](read_bytes(vector["bytes"]))
    assert str(caught.value).startswith(vector["rule"])
    assert len(str(caught.value)) < 200  # the peer's words are not repeated at length


def test_every_rule_of_decoder_and_envelope_has_a_vector() -> None:
    shown = {vector["rule"] for vector in [*STRUCTURAL, *load("decoder.json")]}
    assert set(codec.RULES) | set(cose.RULES) | {"p256-point"} <= shown


@by_name(load("trust.json"))
def test_signature_counts_only_under_the_right_chain(vector: Vector) -> None:
    raw, told = read_bytes(vector["bytes"]), vector["trust"]
    roots = tuple(bytes.fromhex(WORLD["keys"][name]["point"]) for name in ("root", "standby_root"))
    roots += tuple(bytes.fromhex(point) for point in told.get("more_roots", []))
    trust = Trust(told["realm"], roots, told["epoch"], told["now"])
    if vector["kind"] == "ok":
        believe(vector["message"], raw, trust)
        return
    with pytest.raises(PeerBroke) as caught:
        believe(vector["message"], raw, trust)
    assert str(caught.value) == vector["rule"]


def believe(message: str, raw: bytes, trust: Trust) -> None:
    if message == "trust-update":
        after = apply_trust_update(raw, trust)
        assert len(after.roots) == len(trust.roots) + 1
    elif message == "head":
        read_head(raw, trust)
    else:
        verify_signed(read_signed(raw, labels.TYP_GRANT), "grant", WORLD["product"], labels.AAD_GRANT, trust)


def ask_schema(vectors: list[Vector], schema: Path = ROOT / "docs/wire.cddl") -> list[str | None]:
    if not CHECKER.exists():
        pytest.fail("the schema checker's environment is missing: make setup")
    asked = json.dumps([[vector["message"], read_bytes(vector["bytes"]).hex()] for vector in vectors])
    script = [CHECKER, HERE / "schema.py", schema]
    answered = subprocess.run(script, input=asked, capture_output=True, text=True, check=True)
    answers: list[str | None] = json.loads(answered.stdout)
    assert len(answers) == len(vectors)
    return answers


def test_schema_takes_every_golden_message() -> None:
    vectors = load("golden.json")
    assert {one["name"]: why for one, why in zip(vectors, ask_schema(vectors), strict=True) if why} == {}


def test_schema_refuses_every_broken_structure() -> None:
    vectors = [one for one in STRUCTURAL if one["kind"] == "structure"]
    assert len(vectors) > 500
    taken = [one["name"] for one, why in zip(vectors, ask_schema(vectors), strict=True) if why is None]
    assert taken == []


def test_a_schema_that_lost_a_bound_is_found_out(tmp_path: Path) -> None:
    """The check above can fail: without the bound on the nonce the vectors of the nonce get through."""
    loose = tmp_path / "loose.cddl"
    loose.write_text((ROOT / "docs/wire.cddl").read_text().replace("nonce = bstr .size 60", "nonce = bstr"))
    vectors = [one for one in STRUCTURAL if one["rule"].startswith("challenge.nonce: not a byte string")]
    answers = ask_schema(vectors, loose)
    assert None in answers and any(answers)


@pytest.mark.ceiling
def test_a_rerun_of_the_generator_changes_nothing() -> None:
    from tests.vectors.generate import render_all  # deterministic signatures are newer than the floor

    made = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in render_all().items()}
    kept = {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in made}
    assert made == kept
