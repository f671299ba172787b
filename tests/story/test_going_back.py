"""Enrollments that do not go straight: lost answers, long nights, lost journals, jobs that ran full."""

import pytest

from mpagent.errors import Refused, RefusedForNow
from mpagent.record import Stage
from mpissuer.errors import NotNow
from mpsim.board import power_cycle
from mpwire.messages.plain import REFUSAL, RETRY, Refusal
from tests.line import Factory, Oem, ask_all


def test_a_grant_lost_on_the_line_is_said_again_byte_for_byte(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    ask_all(device, until="proven")
    proof = device.record().outbox
    assert proof is not None
    lost = oem.hear(proof)

    assert oem.hear(proof) == lost

    assert device.enroll().stage is Stage.DONE
    assert oem.granted() == 1 and oem.count("grants") == 1


def test_a_proof_that_slept_a_week_is_made_anew_with_the_same_keys(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    ask_all(device, until="proven")
    oem.clock.pass_by(7 * 86_400)

    record = device.enroll()

    assert record.stage is Stage.DONE
    assert oem.granted() == 1 and oem.count("units") == 1
    assert oem.rows("SELECT count(*) FROM hardware_ids WHERE kind = 'device-key'") == [(1,)]


def test_a_new_proof_before_the_receipt_gets_the_same_values_and_is_not_counted_again(
    factory: Factory, oem: Oem
) -> None:
    device = factory.board()
    ask_all(device, until="kept")
    first = device.secrets()
    for name in device.disk.names("."):
        if name.startswith("record"):
            device.disk.remove(name)

    record = device.enroll()

    assert record.stage is Stage.DONE
    again = device.secrets()
    assert {name: again[name] for name in ("cloud", "licence", "identity")} == {
        name: first[name] for name in ("cloud", "licence", "identity")
    }
    assert oem.granted() == 1 and oem.count("grants") == 2 and oem.count("slot_values") == 3


def test_a_finished_board_whose_journal_is_lost_adopts_its_intact_vault(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    device.enroll()
    secrets = device.secrets()
    for name in device.disk.names("."):
        if name.startswith("record"):
            device.disk.remove(name)

    record = device.enroll()

    assert record.stage is Stage.DONE and device.secrets() == secrets
    assert oem.count("grants") == 1


def test_a_finished_board_without_journal_and_vault_needs_a_rework(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    device.enroll()
    for folder in (".", "vault"):
        for name in device.disk.names(folder):
            if name.startswith(("record", "gen-")):
                device.disk.remove(f"{folder}/{name}")

    with pytest.raises(Refused, match="rework"):
        device.enroll()

    assert oem.granted() == 1 and oem.count("grants") == 1


def test_a_power_cycled_board_and_a_restarted_server_know_each_other(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    ask_all(device, until="proven")
    power_cycle(device.folder / "chip")
    oem.restart()

    assert device.enroll().stage is Stage.DONE

    assert oem.granted() == 1


def test_five_boards_and_a_job_of_four(factory: Factory, oem: Oem) -> None:
    boards = [factory.board() for _ in range(5)]
    for board in boards[:4]:
        board.enroll()

    with pytest.raises(Refused, match="quota"):
        boards[4].enroll()

    assert oem.granted() == 4 and oem.count("units") == 4
    assert boards[4].record().stage is Stage.PROVEN and boards[4].disk.names("vault") == ()


def test_an_ended_job_forgets_the_values_of_boards_that_never_came_back(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    ask_all(device, until="proven")
    proof = device.record().outbox
    assert proof is not None
    oem.hear(proof)
    oem.authority._store.destroy_job_key("job-1")
    for name in device.disk.names("."):
        if name.startswith("record"):
            device.disk.remove(name)

    with pytest.raises((Refused, NotNow), match="job-ended"):
        device.enroll()


def test_a_line_that_calls_every_challenge_expired_does_not_keep_a_board_busy_for_ever(
    factory: Factory, oem: Oem
) -> None:
    device = factory.board()
    forged = REFUSAL.encode(Refusal("challenge-expired", RETRY))
    device.line.thief = lambda asked, answer: forged if asked[2] == 3 else answer

    with pytest.raises(RefusedForNow, match="own challenges"):
        device.enroll()

    assert len(device.line.heard) == 4
    assert device.disk.names("vault") == ()
