"""Somebody makes a second board of one: the same chip id, the same key, the same disk, or the same names."""

import json
import shutil

import pytest

from mpagent.errors import ForeignDisk, NotMine, Refused, Tampered
from mpagent.record import Stage
from mpserver.store.sequencer import ALARMS_PER_UNIT
from mpsim.board import BoardPlan
from mpsim.fuses import read_uid
from mpsim.silicon import Chip
from mpwire.cose import thumbprint
from mpwire.messages.eat import Confirmation
from mpwire.p256 import SoftKey
from mpwire.ueid import make_ueid
from tests.attacks.conftest import Refuses
from tests.attacks.forge import Edit, begin_anew, claiming, claims_of, hello_of, prove, resign
from tests.line import Device, Factory, Oem, refusal_check


def uid_of(device: Device) -> bytes:
    """The fuse UID of a board's chip."""
    return read_uid("imx8mm", Chip(device.folder / "chip").read_fuses())


def test_same_chip_id_with_another_device_key_is_a_clone(factory: Factory, oem: Oem) -> None:
    """T-20 Clone: a board burned with a known UID makes keys of its own; the newcomer goes, the good unit finishes."""
    good = factory.board()
    proof = prove(good)
    grant = oem.hear(proof)
    clone = factory.board(uid=uid_of(good))
    before = oem.state("alarms")

    with pytest.raises(Refused, match="clone"):
        clone.enroll()

    assert oem.state("alarms") == before
    ueid, newcomer = claims_of(proof).ueid, claims_of(prove_again(clone)).cnf.key
    assert oem.rows("SELECT kind, ueid, newcomer, count FROM alarms") == [("clone", ueid, thumbprint(newcomer), 1)]
    assert clone.record().stage is Stage.PROVEN and clone.record().generation == 0
    assert oem.hear(proof) == grant
    assert good.enroll().stage is Stage.DONE and oem.granted() == 1


def prove_again(device: Device) -> bytes:
    """The Proof that lies in a board's record."""
    proof = device.record().proof
    assert proof is not None
    return proof


def test_clone_of_a_finished_unit_hears_nothing_of_it(factory: Factory, oem: Oem) -> None:
    """T-21 Clone: after the good unit closed, its double gets neither Grant nor Closed."""
    good = factory.board()
    closed = good.enroll().closed
    secrets, before = good.secrets(), oem.state("alarms")

    clone = factory.copy_chip(good)
    with pytest.raises(Refused, match="clone"):
        clone.enroll()

    assert oem.state("alarms") == before and oem.count("alarms") == 1
    assert closed not in clone.line.said and clone.line.said[-1][:3] == b"\xa4\x00\x07"
    assert good.enroll().closed == closed and good.secrets() == secrets


def test_device_key_under_another_name_is_a_clone(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-22 Clone: a device key taken from one unit asks for secrets as another board."""
    good, thief = factory.board(), factory.board()
    stolen = SoftKey.generate()
    oem.hear(resign(good, prove(good), claiming(cnf=confirm(stolen)), sign=stolen))
    assert oem.granted() == 1

    refuses(resign(thief, prove(thief), claiming(cnf=confirm(stolen)), sign=stolen), "clone")

    assert [(kind, count) for kind, _, count in oem.alarms()] == [("clone", 1)]
    assert oem.granted() == 1


def confirm(key: SoftKey) -> Confirmation:
    """The cnf claim of a key."""
    return Confirmation(key.public_key())


def test_hardware_id_known_elsewhere_is_a_clone(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-23 Clone: another board's fuse UID under another SoC family gives another ueid, and is known all the same."""
    good = factory.board()
    good.enroll()
    thief = factory.board()
    proof, uid = prove(thief), uid_of(good)
    ueid = make_ueid("mp", "imx8mn", uid)
    edit = claiming(ueid=ueid, hwmodel=b"imx8mn", hardware_ids={"imx-uid": uid})

    refuses(begin_anew(thief, proof, hello_of(proof)._replace(ueid=ueid), edit), "clone")

    assert oem.count("alarms") == 1 and oem.granted() == 1


def test_second_hardware_id_of_a_known_unit_is_a_clone(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-23 Clone: an id of its own beside one that belongs to another unit."""
    first, thief = factory.board(), factory.board()
    ek = b"\x00\x0b" + bytes(32)
    proof = prove(first)
    oem.hear(resign(first, proof, lambda claims: claims._replace(hardware_ids={**claims.hardware_ids, "tpm-ek": ek})))
    assert oem.granted() == 1

    edited = resign(
        thief, prove(thief), lambda claims: claims._replace(hardware_ids={**claims.hardware_ids, "tpm-ek": ek})
    )
    refuses(edited, "clone")


def adding(ek: bytes) -> Edit:
    """Claims with an EK beside the ids of the board."""
    return lambda claims: claims._replace(hardware_ids={**claims.hardware_ids, "tpm-ek": ek})


def test_known_unit_that_shows_an_id_of_another_later_is_a_clone(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-23 Clone: a unit that was granted once proves again and now claims what belongs to another."""
    other, thief = factory.board(), factory.board()
    ek = b"\x00\x0b" + bytes(32)
    oem.hear(resign(other, prove(other), adding(ek)))
    proof = prove(thief)
    oem.hear(proof)
    assert oem.granted() == oem.count("grants") == 2

    refuses(begin_anew(thief, proof, hello_of(proof), adding(ek)), "clone")

    assert oem.count("alarms") == 1 and oem.count("grants") == 2


def test_known_unit_whose_second_chip_was_swapped_is_a_clone(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-23 Clone: ids of a known unit are remembered as they come, and none may change afterwards."""
    device = factory.board()
    proof = prove(device)
    oem.hear(proof)
    first, swapped = b"\x00\x0b" + bytes(32), b"\x00\x0b" + bytes(31) + b"\x01"
    oem.hear(begin_anew(device, proof, hello_of(proof), adding(first)))
    assert oem.rows("SELECT count(*) FROM hardware_ids WHERE kind = 'tpm-ek'") == [(1,)]

    refuses(begin_anew(device, proof, hello_of(proof), adding(swapped)), "clone")

    assert oem.count("alarms") == 1 and oem.count("grants") == 2 and oem.granted() == 1


def test_many_clones_make_few_rows(factory: Factory, oem: Oem) -> None:
    """T-24 Flood: doubles of one unit with ever new keys are counted, not listed without end."""
    good = factory.board()
    good.enroll()
    clone = factory.copy_chip(good)
    for number in range(ALARMS_PER_UNIT + 4):
        key = SoftKey.generate()
        base = prove(clone) if number == 0 else clone.record().proof
        assert base is not None
        forged = resign(clone, base, claiming(cnf=confirm(key)), sign=key)
        assert refusal_check(oem.hear(forged)) == "clone"

    assert oem.count("alarms") <= ALARMS_PER_UNIT + 1
    assert oem.rows("SELECT sum(count) FROM alarms") == [(ALARMS_PER_UNIT + 4,)]
    assert good.enroll().stage is Stage.DONE


def put_disk_on_another_chip(good: Device, factory: Factory) -> Device:
    """A thief copies the disk of a finished board onto a board of his own."""
    other = factory.board()
    shutil.copytree(good.folder / "disk", other.folder / "disk", dirs_exist_ok=True)
    return other


def test_cloned_disk_does_not_pass(factory: Factory, oem: Oem) -> None:
    """T-25 Cloned disk: the record names another chip; nothing is asked, changed or latched."""
    good = factory.board()
    good.enroll()
    other = put_disk_on_another_chip(good, factory)
    before, books = other.kept(), oem.state()

    for _ in range(2):
        with pytest.raises(ForeignDisk):
            other.enroll()

    assert other.kept() == before and "latch" not in before
    assert oem.state() == books and other.line.heard == []
    assert good.enroll().stage is Stage.DONE


def test_cloned_disk_without_its_record_opens_nothing(factory: Factory, oem: Oem) -> None:
    """T-26 Cloned disk: the thief removes the record, so that shelf and vault alone remain; neither opens."""
    good = factory.board()
    record = good.enroll()
    secrets = good.secrets()
    other = put_disk_on_another_chip(good, factory)
    for path in other.disk.folder.glob("record-?"):
        path.unlink()
    books = oem.state()

    with pytest.raises(NotMine):
        other.enroll()
    assert record.ueid is not None
    with other.power() as board, pytest.raises(NotMine):
        other.parts(board).tools.vault.read(record.ueid, record.generation)

    assert oem.state() == books and other.record().generation == 0
    for value in secrets.values():
        assert value not in b"".join(other.kept().values())


def test_copied_vault_of_another_board_does_not_pass(factory: Factory, oem: Oem) -> None:
    """T-27 Cloned vault: a board of the same product gets another's finished vault under its own record."""
    first, second = factory.board(), factory.board()
    first.enroll()
    mine = second.enroll()
    source, target = (one.disk.folder / "vault" / "gen-000001" for one in (first, second))
    target.write_bytes(source.read_bytes())

    with pytest.raises(Tampered, match="another board"):
        second.enroll()

    with pytest.raises(Tampered, match="latched"):
        second.enroll()
    assert mine.generation == 1 and first.enroll().stage is Stage.DONE


def test_good_unit_is_not_harmed_by_a_thief_in_its_name(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-28 Denial: whoever copies a UID cannot have the good unit frozen: it still gets a new Grant and its Closed."""
    good = factory.board()
    oem.hear(prove(good))
    clone = factory.board(plan=BoardPlan(closed=True, uid=uid_of(good)))
    for _ in range(3):
        with pytest.raises(Refused, match="clone"):
            clone.enroll()

    oem.clock.pass_by(700)
    again = prove_fresh(good)
    oem.hear(again)

    assert oem.count("grants") == 2 and oem.granted() == 1
    assert good.enroll().stage is Stage.DONE
    assert json.dumps(oem.log).count("another device key") == 3


def prove_fresh(device: Device) -> bytes:
    """A new Proof of the same board and key, over a new Challenge."""
    return begin_anew(device, prove_again(device), hello_of(prove_again(device)))
