"""Somebody wants more boards than were ordered: one too many, all at once, or over a ledger set back in time."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mpagent.errors import Refused as DeviceRefused
from mpagent.record import Stage
from mpissuer.errors import NotNow
from mpserver.keystore import LAST_HEAD, Keystore
from mpserver.store.database import open_database
from mpwire.errors import MpError
from tests.attacks.conftest import Refuses
from tests.attacks.forge import begin_anew, hello_of, prove, resign
from tests.line import Factory, Oem, refusal_check

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]


def change(oem: Oem, sql: str) -> None:
    """An operator's change of the books, by another process."""
    connection = open_database(oem.folder / "ledger.db")
    connection.execute(sql)
    connection.close()


def test_board_beyond_the_quota_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-30 Over-production: the fifth board of four; the four keep theirs."""
    devices = [factory.board() for _ in range(4)]
    for device in devices:
        device.enroll()
    assert oem.rows("SELECT granted, state FROM jobs") == [(4, "exhausted")]

    refuses(prove(factory.board()), "quota")

    assert oem.granted() == oem.count("units") == 4
    assert all(device.enroll().closed for device in devices)


def hear_at_once(servers: list[Oem], proofs: list[bytes]) -> list[bytes]:
    """Every proof, each said to the next server, all at one time."""

    def say(server: Oem, mine: list[bytes]) -> list[bytes]:
        return [server.hear(one) for one in mine]

    shares = [proofs[at :: len(servers)] for at in range(len(servers))]
    with ThreadPoolExecutor(len(servers)) as pool:
        return [answer for answers in pool.map(say, servers, shares) for answer in answers]


def test_boards_at_once_on_several_servers_stay_within_quota(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-31 Over-production: eight boards race for a quota of three on four servers over one ledger."""
    oem = make_oem(quota=3)
    factory = make_factory(oem)
    proofs = [prove(factory.board()) for _ in range(8)]
    servers = [oem.replica() for _ in range(4)]

    answers = hear_at_once(servers, proofs)

    granted = [one for one in answers if one[:1] == b"\xd2"]
    refused = [refusal_check(one) for one in answers if one[:1] != b"\xd2"]
    assert len(granted) == 3 and refused == ["quota"] * 5
    assert oem.granted() == oem.count("units") == oem.count("grants") == oem.count("entries") == 3
    for one in servers:
        one.stop()


def test_one_board_at_once_on_several_servers_is_counted_once(factory: Factory, oem: Oem) -> None:
    """T-32 Over-production: root on one board says many proofs at once; one unit, one allocation, one count."""
    device = factory.board()
    first = prove(device)
    proofs = [first, *(begin_anew(device, first, hello_of(first)) for _ in range(5)), resign(device, first)]
    servers = [oem.replica() for _ in range(3)]

    answers = hear_at_once(servers, proofs)

    assert sorted(one[:1] == b"\xd2" for one in answers) == [False] + [True] * 6
    assert oem.granted() == oem.count("units") == 1 and oem.count("slot_values") == 3
    assert oem.count("grants") == 6
    for one in servers:
        one.stop()


def copy_ledger(oem: Oem, target: Path) -> None:
    """A backup by SQLite's own means."""
    connection = sqlite3.connect(target)
    oem.connection.backup(connection)
    connection.close()


def restore_ledger(oem: Oem, source: Path) -> None:
    """The server stops, an older file is put back, the server starts."""
    oem.stop()
    for path in oem.folder.glob("ledger.db*"):
        path.unlink()
    shutil.copy(source, oem.folder / "ledger.db")
    oem.start()


def test_restored_older_ledger_grants_nothing(factory: Factory, oem: Oem, tmp_path: Path) -> None:
    """T-33 Over-production: the count is set back by restoring a backup; the last head outside gives it away."""
    factory.board().enroll()
    copy_ledger(oem, tmp_path / "backup.db")
    for _ in range(3):
        factory.board().enroll()
    restore_ledger(oem, tmp_path / "backup.db")
    assert oem.granted() == 1
    before, late = oem.state(), factory.board()

    proof = prove(late)
    for _ in range(2):
        with pytest.raises(NotNow, match="recovery"):
            oem.hear(proof)

    assert oem.state() == before
    assert late.record().generation == 0


def test_lost_last_head_grants_nothing(factory: Factory, oem: Oem) -> None:
    """T-34 Over-production: with the older ledger goes the file that would tell."""
    factory.board().enroll()
    os.unlink(oem.folder / "keys" / LAST_HEAD)
    oem.restart()
    before = oem.state()

    with pytest.raises(NotNow, match="recovery"):
        oem.hear(prove(factory.board()))

    assert oem.state() == before


def test_overwritten_last_head_grants_nothing(factory: Factory, oem: Oem) -> None:
    """T-34 Over-production: zeros in place of the last head are no "nothing was committed yet"."""
    factory.board().enroll()
    (oem.folder / "keys" / LAST_HEAD).write_bytes(bytes(1024))
    oem.restart()

    with pytest.raises(NotNow, match="recovery"):
        oem.hear(prove(factory.board()))

    assert oem.granted() == 1


def test_other_ledger_of_the_same_length_grants_nothing(factory: Factory, oem: Oem, tmp_path: Path) -> None:
    """T-35 Over-production: a backup grown again to the old length holds other units, and another root."""
    copy_ledger(oem, tmp_path / "empty.db")
    kept = oem.folder / "keys" / LAST_HEAD
    fresh = kept.read_bytes()
    factory.board().enroll()
    last = kept.read_bytes()
    restore_ledger(oem, tmp_path / "empty.db")
    kept.write_bytes(fresh)
    factory.board().enroll()
    assert oem.count("entries") == 2
    kept.write_bytes(last)
    oem.restart()
    before = oem.state()

    with pytest.raises(NotNow, match="recovery"):
        oem.hear(prove(factory.board()))

    assert oem.state() == before


@pytest.mark.parametrize("state", ["draft", "ended"])
def test_job_that_is_not_open_grants_nothing(factory: Factory, oem: Oem, refuses: Refuses, state: str) -> None:
    """T-36 Over-production: a job that nobody approved, or that was ended."""
    change(oem, f"UPDATE jobs SET state = '{state}'")

    refuses(prove(factory.board()), "job")

    assert oem.granted() == 0


def test_ended_job_forgets_its_values(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-37 Hoarding: once a job's key is destroyed, no new Grant can be made of what it gave out."""
    device = factory.board()
    proof = prove(device)
    oem.hear(proof)
    Keystore(oem.folder / "keys").destroy_job_key("job-1")

    refuses(begin_anew(device, proof, hello_of(proof)), "job-ended")

    assert oem.count("grants") == 1
    Keystore(oem.folder / "keys").make_job_key("job-1")
    connection = open_database(oem.folder / "ledger.db")
    connection.execute("DELETE FROM slot_values")  # under the lost key: nobody reads them, this test's search neither
    connection.close()


def test_new_proof_of_one_unit_gets_the_same_values(factory: Factory, oem: Oem) -> None:
    """T-38 Hoarding: a unit that asks again before its receipt gets no second set of values, and is not counted."""
    device = factory.board()
    first = prove(device)
    oem.hear(first)
    values = oem.secrets()

    for _ in range(3):
        oem.hear(begin_anew(device, first, hello_of(first)))

    assert oem.secrets() == values and oem.count("slot_values") == 3
    assert oem.granted() == 1 and oem.count("grants") == 4


def test_board_with_another_certificate_key_gets_no_second_certificate(factory: Factory, oem: Oem) -> None:
    """T-240 Hoarding: root drops a key that was certified, so that one board has two certificates of one slot."""
    device = factory.board()
    oem.hear(prove(device))
    for name in ("record-a", "record-b", "shelf/sealed-key-certificate-identity"):
        (device.disk.folder / name).unlink()
    before = oem.state()

    with pytest.raises(DeviceRefused, match="allocation"):
        device.enroll()

    assert oem.state() == before
    assert oem.count("grants") == 1 and device.record().generation == 0


def test_value_of_one_board_reaches_no_other(factory: Factory, oem: Oem) -> None:
    """T-234 Doubling: an insider puts one board's stored value in the place of another's."""
    good, other = factory.board(), factory.board()
    good.enroll()
    said = prove(other)
    oem.hear(said)
    assert len(set(oem.secrets())) == 3  # a random value each, and the static one that all boards share
    place = "WHERE slot = 'cloud' AND ueid = (SELECT ueid FROM units ORDER BY rowid DESC LIMIT 1)"
    values = [row[0] for row in oem.rows("SELECT hex(wrapped) FROM slot_values WHERE slot = 'cloud' ORDER BY rowid")]
    change(oem, f"UPDATE slot_values SET wrapped = x'{values[0]}' {place}")
    before = oem.state()

    oem.hear(begin_anew(other, said, hello_of(said)))

    assert "does not open under the job's key" in oem.log[-1]
    assert oem.state() == before
    change(oem, f"UPDATE slot_values SET wrapped = x'{values[1]}' {place}")
    assert other.enroll().stage is Stage.DONE


def test_scrapped_unit_gets_nothing(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-39 Grey market: a unit written off comes back with its own key."""
    device = factory.board()
    proof = prove(device)
    oem.hear(proof)
    change(oem, "UPDATE units SET state = 'scrapped'")

    refuses(begin_anew(device, proof, hello_of(proof)), "scrapped")


def test_grant_said_is_a_grant_stored(factory: Factory, oem: Oem) -> None:
    """T-40 Power: what left the issuer once is there after it died, byte for byte, and counted."""
    device = factory.board()
    proof = prove(device)
    grant = oem.hear(proof)

    oem.restart()

    assert oem.hear(proof) == grant and oem.granted() == 1
    assert device.enroll().closed is not None


def test_quota_holds_in_the_file_itself(factory: Factory, oem: Oem) -> None:
    """T-41 Insider: the ledger's own rules stop a count above the quota and a second owner of a hardware id."""
    factory.board().enroll()
    ueid = oem.rows("SELECT ueid FROM units")[0][0]

    with pytest.raises(sqlite3.IntegrityError, match="over_quota"):
        change(oem, "UPDATE jobs SET granted = 5")
    connection = open_database(oem.folder / "ledger.db")
    for sql in (
        "INSERT INTO hardware_ids SELECT kind, id, ueid FROM hardware_ids",
        "INSERT INTO grants SELECT * FROM grants",
        "INSERT INTO slot_values SELECT * FROM slot_values",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(sql)
    connection.close()

    assert oem.granted() == 1 and oem.rows("SELECT DISTINCT ueid FROM hardware_ids") == [(ueid,)]


def test_authority_that_fails_counts_nothing(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-42 Availability: a token that stops answering while a Grant is made leaves no count behind."""
    oem = make_oem(watch=Faltering)
    factory = make_factory(oem)
    device = factory.board()
    proof = prove(device)
    before = oem.state()

    oem.authority.broken = True  # type: ignore[attr-defined]
    with pytest.raises(MpError):
        oem.hear(proof)
    assert oem.state() == before

    oem.authority.broken = False  # type: ignore[attr-defined]
    assert device.enroll().closed is not None and oem.granted() == 1


class Faltering:
    """mpissuer.ports.Authority whose signing can be switched off."""

    def __init__(self, real: object) -> None:
        self._real, self.broken = real, False

    def __getattr__(self, name: str) -> object:
        if name == "sign" and self.broken:
            raise NotNow("token", detail="no session")
        return getattr(self._real, name)
