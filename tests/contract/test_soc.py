"""ports.Soc: what every part that tells of itself promises."""

from mpagent.hal.ports import LifeCycle, Provenance
from tests.contract.rigs import Rig

PORT = "soc"


def test_facts_are_the_same_after_a_restart_and_a_power_cut(rig: Rig) -> None:
    with rig.open() as board:
        facts = board.soc.read_facts()
        assert board.soc.read_facts() == facts
    rig.power_cycle()
    with rig.open() as board:
        assert board.soc.read_facts() == facts


def test_facts_fit_the_evidence_and_each_has_its_witness(rig: Rig) -> None:
    with rig.open() as board:
        facts = board.soc.read_facts()
    told = {name: getattr(facts, name) for name in ("uid", "life_cycle", "srk_hash")}
    assert facts.provenance.keys() == {name for name, value in told.items() if value is not None}
    assert all(isinstance(who, Provenance) for who in facts.provenance.values())
    assert 1 <= len(facts.family.encode()) <= 32 and facts.family == facts.family.lower()
    assert facts.uid is None or len(facts.uid) in (8, 16)
    assert facts.srk_hash is None or len(facts.srk_hash) in (32, 64)
    assert facts.life_cycle is None or isinstance(facts.life_cycle, LifeCycle)


def test_two_boards_do_not_share_a_uid(rig: Rig, stranger: Rig) -> None:
    with rig.open() as board, stranger.open() as other:
        found = {board.soc.read_facts().uid, other.soc.read_facts().uid}
    assert found == {None} or len(found) == 2
