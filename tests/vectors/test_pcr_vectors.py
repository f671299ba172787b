"""pcrs.json against mpwire.pcr_policy and docs/wire.cddl."""

import pytest

from mpwire import pcr_policy, tpm2
from mpwire.errors import Malformed, Unauthentic
from tests.vectors.format import HERE, Vector, load
from tests.vectors.test_wire_vectors import ask_schema

VECTORS = load("pcrs.json")


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    chosen = [vector for vector in VECTORS if vector["kind"] in kinds]
    assert chosen
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


@of_kind("ok")
def test_approval_gives_the_digests_of_the_document(vector: Vector) -> None:
    approval, point = pcr_policy.read_approval(bytes.fromhex(vector["bytes"])), bytes.fromhex(vector["authority"])
    pcr_policy.verify_approval(approval, point)
    reference = pcr_policy.make_reference(approval.realm, approval.product)
    assert reference.hex() == vector["reference"]
    assert pcr_policy.pcr_policy(approval.pcrs).hex() == vector["policy"]
    assert tpm2.make_name(pcr_policy.write_authority(point)).hex() == vector["key_name"]
    assert pcr_policy.seal_policy(point, reference).hex() == vector["auth_policy"]


@of_kind("structure", "encoding")
def test_broken_approval_is_refused_by_its_rule(vector: Vector) -> None:
    with pytest.raises(Malformed) as caught:
        pcr_policy.read_approval(bytes.fromhex(vector["bytes"]))
    assert str(caught.value).startswith(vector["rule"])


@pytest.mark.parametrize("pcrs", [[], [(16, bytes(31) + b"\1")], [(-1, bytes(31) + b"\1")]], ids=str)
def test_no_approval_is_written_that_no_reader_takes(pcrs: list[tuple[int, bytes]]) -> None:
    with pytest.raises(Malformed, match="PCRs are 1 to 16 of 0 to 15"):
        pcr_policy.write_approval("lab", "gateway", pcrs, lambda _: bytes(64))


@of_kind("trust")
def test_approval_that_the_authority_did_not_sign_is_refused(vector: Vector) -> None:
    """T-281 Forged approval: another key, or a true signature beside other PCRs, another product or realm."""
    approval = pcr_policy.read_approval(bytes.fromhex(vector["bytes"]))
    with pytest.raises(Unauthentic, match=vector["rule"]):
        pcr_policy.verify_approval(approval, bytes.fromhex(vector["authority"]))


def test_schema_takes_what_the_reader_takes_and_refuses_broken_structures() -> None:
    answers = {one["name"]: (one["kind"], why) for one, why in zip(VECTORS, ask_schema(VECTORS), strict=True)}
    assert {name: why for name, (kind, why) in answers.items() if kind in ("ok", "trust") and why} == {}
    assert [name for name, (kind, why) in answers.items() if kind == "structure" and why is None] == []


@pytest.mark.ceiling
def test_a_rerun_changes_nothing() -> None:
    from tests.vectors import pcrs  # deterministic signatures are newer than the floor
    from tests.vectors.format import render

    assert render(pcrs.vectors()) == (HERE / pcrs.FILE).read_text()
