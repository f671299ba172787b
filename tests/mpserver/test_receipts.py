"""Receipts of boards without a line: what is kept, what is told, and what a spoilt file leaves behind: nothing."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mpserver.office import Office
from mpserver.receiptfiles import FILE_MAX_BYTES
from mpserver.state import State
from mpserver.store.bundles import BundleSlot
from mpserver.vault import FileVault
from mpwire.messages.grant import SlotReceipt
from mpwire.secret import Secret
from tests.mpserver.desk import Desk
from tests.mpserver.lots import CHECK, OWN_CHECK, PRK, VAULT_NAME, Lot, OfflineBoard, make_board, say


@pytest.fixture
def lot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lot:
    """A server with one job."""
    return Lot(Desk(tmp_path, capsys))


def kinds(told: dict[str, list[dict[str, str]]]) -> list[str]:
    return [one["conflict"] for one in told["conflicts"]]


def test_files_of_two_lines_come_together_and_a_second_time_change_nothing(lot: Lot) -> None:
    bundle = lot.print_bundle()
    boards = [make_board() for _ in range(5)]
    said = [say(one, bundle) for one in boards]
    first, second = lot.write("a.receipts", *said[:3]), lot.write("b.receipts", *said[2:])
    told = lot.desk.read("receipts", "import", first, second)
    assert (told["files"], told["receipts"], told["new"], told["known"]) == (2, 6, 5, 1)
    assert told["conflicts"] == told["failed"] == []
    before = lot.count("entries")
    told = lot.desk.read("receipts", "import", second, first, first)
    assert (told["new"], told["known"], told["conflicts"]) == (0, 9, [])
    assert lot.count("entries") == before and lot.count() == 5
    report = lot.desk.read("receipts", "report")
    assert {one["ueid"] for one in report["boards"]} == {one.ueid.hex() for one in boards}
    assert lot.desk.read("ledger", "verify")["bundle_receipts"] == 5


def test_a_board_that_took_a_bundle_twice_or_the_next_one_is_one_board(lot: Lot) -> None:
    """A power cut between receipt and reboot makes a board say it again, under a signature of its own."""
    one, two = lot.print_bundle(quantity=1), lot.print_bundle(version=2, quantity=1)
    board = make_board()
    path = lot.write("a.receipts", say(board, one), say(board, one), say(board, two))
    assert lot.desk.read("receipts", "import", path)["conflicts"] == []
    report = lot.desk.read("receipts", "report")
    assert [one["versions"] for one in report["boards"]] == [{"mp": 2}]
    assert [one["boards"] for one in report["bundles"]] == [1, 1]


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_receipt_without_the_class_key_keeps_its_whole_file_out(lot: Lot, where: int) -> None:
    """T-713 Forgery: the line makes receipts for boards that it never built, or keeps to itself."""
    bundle = lot.print_bundle()
    said = [say(make_board(), bundle) for _ in range(2)]
    said.insert(where, say(make_board(), bundle, prk=Secret(bytes(32))))
    before = lot.count("entries")
    told = lot.desk.read("receipts", "import", lot.write("a.receipts", *said), code=65)
    assert "receipt-mac" in told["failed"][0]["said"] and f"receipt {where + 1}," in told["failed"][0]["said"]
    assert (told["files"], lot.count(), lot.count("entries")) == (0, 0, before)


def test_a_receipt_signed_by_another_than_it_names_keeps_its_file_out(lot: Lot) -> None:
    """T-713 Forgery: a receipt in the name of another board's key."""
    bundle, board = lot.print_bundle(), make_board()
    forged = say(board, bundle, key=make_board().key.public_key())
    told = lot.desk.read("receipts", "import", lot.write("a.receipts", say(board, bundle), forged), code=65)
    assert "receipt-signature" in told["failed"][0]["said"] and lot.count() == 0


def test_one_chip_with_two_device_keys_is_told_whichever_file_comes_first(lot: Lot) -> None:
    """T-714 Clone: fuses or a disk were copied; both say good receipts, and nobody can say which was first."""
    bundle = lot.print_bundle()
    good = make_board()
    clone = make_board(good.uid)
    first, second = lot.write("a.receipts", say(good, bundle)), lot.write("b.receipts", say(clone, bundle))
    lot.desk.read("receipts", "import", second)
    told = lot.desk.read("receipts", "import", first, code=77)
    assert kinds(told) == ["clone"] and "imx-uid" in told["conflicts"][0]["said"]
    assert len(told["conflicts"][0]["boards"]) == 2 and lot.count() == 2
    assert kinds(lot.desk.read("receipts", "import", first, second, code=77)) == ["clone"]
    assert kinds(lot.desk.read("receipts", "report", code=77)) == ["clone"]
    lot.make_job("lot-2")
    assert kinds(lot.desk.read("receipts", "report", "--job", "lot-2")) == []
    assert lot.desk.run("receipts", "report", "--job", "other")[0] == 64


def test_two_boards_with_one_device_key_or_with_one_id_under_other_names_are_told(lot: Lot) -> None:
    """T-714 Clone: one disk in two boards; one chip that gives itself another name."""
    bundle = lot.print_bundle()
    board = make_board()
    other = OfflineBoard(os.urandom(8), board.key)
    renamed = make_board()
    path = lot.write(
        "a.receipts",
        *(say(one, bundle) for one in (board, other)),
        say(renamed, bundle),
        say(make_board(), bundle, hardware_ids={"imx-uid": renamed.uid}),
    )
    told = lot.desk.read("receipts", "import", path, code=77)
    assert kinds(told) == ["clone", "clone"]
    assert sorted("device-key" in one["said"] for one in told["conflicts"]) == [False, True]


def test_a_chip_that_came_over_a_line_before_is_told(lot: Lot) -> None:
    """T-714 Clone: the same chip by both ways, with two keys."""
    bundle, board, state = lot.print_bundle(), make_board(), lot.open()
    key = make_board().key.public_key()
    state.connection.execute("UPDATE jobs SET granted = 1")
    state.connection.execute(
        "INSERT INTO units (ueid, product, job, state, sign_key, attester, grade, granted_at)"
        " VALUES (?, 'camera', 'lot-1', 'granted', ?, 'tpm', 'K', 0)",
        (b"\x01" + bytes(32), key),
    )
    state.connection.execute(
        "INSERT INTO hardware_ids (kind, id, ueid) VALUES ('imx-uid', ?, ?)", (board.uid, b"\x01" + bytes(32))
    )
    state.close()
    told = lot.desk.read("receipts", "import", lot.write("a.receipts", say(board, bundle)), code=77)
    assert kinds(told) == ["clone"] and len(told["conflicts"][0]["boards"]) == 2


def test_boards_beyond_the_printed_quantity_are_named_in_the_order_of_their_files(lot: Lot) -> None:
    """T-716 Overproduction: the line flashes more boards than were ordered; the bundle opens on every one."""
    bundle = lot.print_bundle(quantity=3)
    said = [say(make_board(), bundle) for _ in range(5)]
    lot.desk.read("receipts", "import", lot.write("a.receipts", *said[:3]))
    told = lot.desk.read("receipts", "import", lot.write("b.receipts", said[0], *said[3:]), code=77)
    assert kinds(told) == ["over-quantity"] * 2
    assert [one["said"].split()[1] for one in told["conflicts"]] == ["4", "5"] and lot.count() == 5
    assert kinds(lot.desk.read("receipts", "report", code=77)) == ["over-quantity"] * 2


def test_boards_beyond_the_quota_of_the_job_are_named_whatever_bundle_they_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T-716 Overproduction: two bundles of one job, each within its quantity."""
    lot = Lot(Desk(tmp_path, capsys), quota=3)
    one, two = lot.print_bundle(quantity=2), lot.print_bundle(version=2, quantity=3)
    path = lot.write("a.receipts", *(say(make_board(), bundle) for bundle in (one, one, two, two)))
    told = lot.desk.read("receipts", "import", path, code=77)
    assert kinds(told) == ["over-quantity"] and "job lot-1" in told["conflicts"][0]["said"]
    path = lot.write("b.receipts", *(say(make_board(), two) for _ in range(2)))
    told = lot.desk.read("receipts", "import", path, code=77)
    assert sorted("job lot-1" in one["said"] for one in told["conflicts"]) == [False, True]


def test_a_chip_that_is_not_on_the_list_is_told_and_who_is_missing_too(lot: Lot) -> None:
    """T-717 Stranger: a board that nobody ordered took the bundle of a reel."""
    listed = [make_board() for _ in range(3)]
    bundle = lot.print_bundle(uids=tuple(one.uid for one in listed))
    stranger, nameless = make_board(), make_board()
    path = lot.write(
        "a.receipts", say(listed[0], bundle), say(stranger, bundle), say(nameless, bundle, hardware_ids={})
    )
    told = lot.desk.read("receipts", "import", path, code=77)
    assert kinds(told) == ["uid", "uid"]
    assert [one["boards"][0]["ueid"] for one in told["conflicts"]] == [stranger.ueid.hex(), nameless.ueid.hex()]
    (report,) = lot.desk.read("receipts", "report", code=77)["bundles"]
    assert sorted(report["missing"]) == sorted(one.uid.hex() for one in listed[1:])
    newer = lot.print_bundle(version=2, uids=(listed[1].uid,))
    lot.desk.read("receipts", "import", lot.write("b.receipts", say(listed[1], newer)))
    one, two = lot.desk.read("receipts", "report", code=77)["bundles"]
    assert (one["missing"], two["missing"]) == ([listed[2].uid.hex()], [])


def test_a_receipt_of_a_bundle_nobody_printed_here_is_told_and_not_kept(lot: Lot) -> None:
    """T-718 Replay: receipts of another server, another realm, or an invented bundle."""
    bundle = lot.print_bundle()
    other, newer = bundle._replace(digest=bytes(32)), bundle._replace(digest=bytes([1]) * 32, version=7)
    path = lot.write("a.receipts", *(say(make_board(), one) for one in (bundle, other, newer)))
    told = lot.desk.read("receipts", "import", path, code=77)
    assert kinds(told) == ["unknown-bundle"] * 2 and (told["new"], told["known"]) == (1, 0)
    assert "newest here" in told["conflicts"][1]["said"] and "another server" in told["conflicts"][0]["said"]
    assert lot.count() == 1
    assert lot.desk.read("receipts", "report")["conflicts"] == []


def test_a_receipt_played_under_another_job_or_product_is_no_receipt_of_it(lot: Lot) -> None:
    """T-718 Replay: the MAC hangs on the job of the bundle, and so does what the receipt says."""
    bundle, board = lot.print_bundle(), make_board()
    lot.make_job("lot-2")
    path = lot.write("a.receipts", say(board, bundle, job="lot-2", mac_job="lot-2"))
    assert "receipt-mac" in lot.desk.read("receipts", "import", path, code=65)["failed"][0]["said"]
    for number, change in enumerate(({"job": "lot-2"}, {"product": "door"}, {"version": 2}, {"authority": "oem"})):
        path = lot.write(f"{number}.receipts", say(make_board(), bundle, **change))
        assert kinds(lot.desk.read("receipts", "import", path, code=77)) == ["bundle"]


def test_a_board_that_does_not_hold_what_was_printed_is_told(lot: Lot) -> None:
    boards = [make_board() for _ in range(6)]
    slots = (
        BundleSlot("cloud", 2, "replace", None, CHECK),
        BundleSlot("disk", 1, "fill", None, CHECK),
        BundleSlot("own", 1, "fill", boards[0].uid, OWN_CHECK),
        BundleSlot("policy", 1, "replace", None, CHECK),
    )
    bundle = lot.print_bundle(slots=slots)
    cloud, disk = (SlotReceipt(one.name, "caam", one.version, one.check) for one in slots[:2])
    older = SlotReceipt("disk", "caam", 1, OWN_CHECK)
    for number, (board, said, expected) in enumerate(
        [
            (boards[0], {}, []),
            (boards[1], {}, []),
            (boards[2], {"slots": (cloud, older), "skipped": ("disk",)}, []),
            (boards[3], {"slots": (cloud,), "skipped": ("disk",)}, ["slots"]),
            (boards[4], {"slots": (cloud._replace(version=1), disk), "skipped": ("cloud",)}, ["slots"]),
            (boards[5], {"slots": (cloud, older)}, ["check-value"]),
            (boards[0], {"slots": (cloud, disk)}, ["slots"]),
            (boards[0], {"slots": (cloud, disk, older._replace(name="own", check=CHECK))}, ["check-value"]),
        ]
    ):
        path = lot.write(f"{number}.receipts", say(board, bundle, **said))
        told = lot.desk.read("receipts", "import", path, code=77 if expected else 0)
        assert kinds(told)[-1:] == expected, number


@pytest.mark.parametrize("said", [{"closed_proof": "none"}, {"life_cycle": None}, {"life_cycle": 2}])
def test_a_board_that_did_not_prove_itself_closed_is_told(lot: Lot, said: dict[str, object]) -> None:
    bundle = lot.print_bundle()
    path = lot.write("a.receipts", say(make_board(), bundle, **said))
    assert kinds(lot.desk.read("receipts", "import", path, code=77)) == ["life-cycle"]


def test_a_file_torn_at_any_byte_leaves_nothing(lot: Lot) -> None:
    """T-715 Torn: a medium pulled too soon; half a file looks like a whole one of fewer boards, but for its tear."""
    bundle = lot.print_bundle()
    one, two = say(make_board(), bundle), say(make_board(), bundle)
    before, whole = lot.count("entries"), one + two
    folder = lot.desk.folder / "torn"
    for cut in range(len(whole)):
        if cut != len(one):
            lot.write(f"torn/{cut:05d}.receipts", whole[:cut])
    told = lot.desk.read("receipts", "import", "--keep-going", str(folder), code=65)
    assert len(told["failed"]) == len(whole) - 1 and told["files"] == 0
    assert (lot.count(), lot.count("entries")) == (0, before)
    assert lot.desk.read("receipts", "import", lot.write("whole.receipts", whole))["new"] == 2


def test_garbage_and_lengths_out_of_the_blue_leave_nothing(lot: Lot) -> None:
    """T-719 Bad file: what no board wrote is refused before memory is taken for it."""
    bundle = lot.print_bundle()
    good = say(make_board(), bundle)
    for number, raw in enumerate(
        (
            b"",
            b"\x00\x0f\x42\x40" + bytes(1_000_000),
            b"\xff\xff\xff\xff",
            bytes(4),
            good + bytes(4),
            good + good[4:],
            os.urandom(4_096),
            b"#!/bin/sh\n",
            good[:4] + bytes(len(good) - 4),
        )
    ):
        path = lot.write(f"{number}.receipts", raw)
        told = lot.desk.read("receipts", "import", path, code=65)
        assert len(told["failed"]) == 1 and len(told["failed"][0]["said"]) < 300
    assert lot.count() == 0


def test_pipes_loops_and_endless_files_are_passed_over_or_refused_at_once(lot: Lot) -> None:
    """T-719 Bad file: a medium from a factory holds what it wants to."""
    bundle, folder = lot.print_bundle(), lot.desk.folder / "stick"
    lot.write("stick/a.receipts", say(make_board(), bundle))
    lot.write("stick/README.txt", b"not ours")
    (folder / "below").mkdir()
    (folder / "below" / "up").symlink_to(folder)
    (folder / "link.receipts").symlink_to("/dev/zero")
    assert lot.desk.read("receipts", "import", str(folder))["files"] == 1
    os.mkfifo(folder / "pipe.receipts")
    with (folder / "vast.receipts").open("wb") as file:
        file.truncate(FILE_MAX_BYTES + 1)
    told = lot.desk.read("receipts", "import", "--keep-going", str(folder), code=65)
    assert {Path(one["file"]).name for one in told["failed"]} == {"pipe.receipts", "vast.receipts"}
    assert (len(told["failed"]), told["known"]) == (2, 1)
    for place in ("pipe.receipts", "missing", "below"):
        assert lot.desk.run("receipts", "import", str(folder / place))[0] == 64


def test_a_name_that_steers_a_terminal_or_forges_a_line_is_spelled_out(lot: Lot) -> None:
    """T-719 Bad file: the name of a file is the factory's own words."""
    folder = lot.desk.folder / "stick"
    folder.mkdir()
    for name in (b"a\x1b[2J.receipts", b"b\nok.receipts", b"c\xff\xfe.receipts"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(b"\0")
    code, out, _ = lot.desk.run("receipts", "import", "--keep-going", str(folder))
    assert code == 65 and len(out.splitlines()) == 4 and out.replace("\n", "").isprintable()
    assert len(lot.desk.read("receipts", "import", "--keep-going", str(folder), code=65)["failed"]) == 3


def test_without_keep_going_the_first_bad_file_ends_it_and_what_came_before_stays(lot: Lot) -> None:
    bundle, folder = lot.print_bundle(), lot.desk.folder / "stick"
    for name in ("a", "c"):
        lot.write(f"stick/{name}.receipts", say(make_board(), bundle))
    lot.write("stick/b.receipts", b"\0")
    told = lot.desk.read("receipts", "import", str(folder), code=65)
    assert (told["new"], [Path(one["file"]).name for one in told["failed"]]) == (1, ["b.receipts"])
    told = lot.desk.read("receipts", "import", "--keep-going", str(folder), code=65)
    assert (told["new"], told["known"]) == (1, 1)


def test_a_key_that_left_the_vault_stops_the_import(lot: Lot) -> None:
    bundle, state = lot.print_bundle(), lot.open()
    FileVault(state.keystore.path).destroy(VAULT_NAME)
    state.close()
    code, _, err = lot.desk.run("receipts", "import", lot.write("a.receipts", say(make_board(), bundle)))
    assert code == 77 and VAULT_NAME in err and lot.count() == 0


def test_the_doctor_says_which_key_of_bundles_is_missing(lot: Lot) -> None:
    """A restored keystore without its vault, or a product whose key was never imported."""

    def look() -> list[tuple[str, bool | None]]:
        lines = lot.desk.read("doctor", code=77) if "lost" in told else lot.desk.read("doctor")
        return [(one["check"], one["ok"]) for one in lines if one["check"] in ("mp-key", "authority")]

    told = ""
    assert ("mp-key", None) in look()
    state = lot.open()
    state.connection.execute(
        "INSERT INTO hidden_mp_keys (mpk_id, part, origin, added_at) VALUES (?, '', 'simulated', 0)",
        (bytes.fromhex("ab" * 16),),
    )
    assert look() == []
    FileVault(state.keystore.path).destroy(VAULT_NAME)
    state.connection.execute(
        "INSERT INTO update_authorities VALUES ('camera', 'oem', ?, 0, 'update-key', 0)", (bytes(65),)
    )
    told = "lost"
    assert look() == [("mp-key", False), ("authority", False)]
    state.close()


def test_nothing_that_is_printed_holds_a_key(lot: Lot) -> None:
    bundle, board = lot.print_bundle(quantity=1), make_board()
    path = lot.write("a.receipts", say(board, bundle), say(make_board(board.uid), bundle), say(make_board(), bundle))
    told = ""
    for command in (("receipts", "import", path), ("receipts", "report"), ("device", "list"), ("doctor",)):
        for form in ((), ("--json",)):
            told += "".join(map(str, lot.desk.run(*command, *form)[1:]))
    assert PRK.reveal().hex() not in told and "clone" in told and "over-quantity" in told


def test_boards_without_a_line_are_listed_and_shown_with_their_receipts(lot: Lot) -> None:
    bundle, board = lot.print_bundle(), make_board()
    said = say(board, bundle)
    lot.desk.read("receipts", "import", lot.write("a.receipts", said))
    (row,) = lot.desk.read("device", "list")
    assert (row["ueid"], row["state"], row["product"], row["job"]) == (board.ueid.hex(), "offline", "camera", "lot-1")
    out = lot.desk.folder / "receipt"
    shown = lot.desk.read("device", "show", board.ueid.hex()[:12], "--receipt", str(out))
    assert shown["hardware_ids"] == {"imx-uid": board.uid.hex()} and shown["conflicts"] == []
    (told,) = shown["bundle_receipts"]
    assert (told["slots"], told["closed_proof"], told["faults"]) == ({"cloud": 1}, "mp-key", [])
    assert hashlib.sha256(out.read_bytes()).hexdigest() == told["digest"]
    assert lot.desk.run("inspect", str(out))[0] == 0
    assert any(one["check"] == "receipts" and one["ok"] for one in lot.desk.read("doctor"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bundle_receipts SET faults = ''",
        "UPDATE bundle_receipts SET mac = zeroblob(32)",
        "UPDATE bundle_receipts SET ueid = zeroblob(33)",
        "UPDATE bundle_receipts SET signed = x'80'",
        "UPDATE bundle_receipts SET sign_key = zeroblob(65)",
        "DELETE FROM bundle_receipts",
        "DELETE FROM bundle_receipt_ids WHERE kind = 'imx-uid'",
        "INSERT INTO bundle_receipt_ids VALUES ('imx-uid', x'00', x'01', x'02')",
    ],
)
def test_a_receipt_changed_or_forgotten_in_the_ledger_file_is_found(lot: Lot, statement: str) -> None:
    """T-720 Insider: the row of a board too many is taken out, or its fault."""
    bundle = lot.print_bundle(uids=(bytes(8),))
    lot.desk.run("receipts", "import", lot.write("a.receipts", say(make_board(), bundle)))
    assert lot.desk.read("ledger", "verify")["verified"]
    state = lot.open()
    state.connection.execute(statement)
    state.close()
    code, _, err = lot.desk.run("ledger", "verify")
    assert code == 65 and "receipt" in err


def test_an_import_that_is_killed_has_taken_each_file_whole_or_not_at_all(lot: Lot) -> None:
    """T-721 Cut: power fails while a folder is taken in; the same command again finishes it."""
    bundle = lot.print_bundle()
    boards = [make_board() for _ in range(60)]
    for number in range(6):
        said = [say(one, bundle) for one in boards[10 * number : 10 * number + 10]]
        lot.write(f"stick/{number}.receipts", *said * 40)
    command = [sys.executable, "-m", "mpserver", "--dir", str(lot.desk.state), "receipts", "import"]
    for wait in (0.25, 0.4, 0.55, 0.7):
        with subprocess.Popen([*command, str(lot.desk.folder / "stick")], stdout=subprocess.DEVNULL) as started:
            time.sleep(wait)
            started.send_signal(signal.SIGKILL)
        assert lot.count() % 10 == 0
        assert lot.desk.read("ledger", "verify")["verified"]
    lot.desk.read("receipts", "import", str(lot.desk.folder / "stick"))
    assert lot.count() == 60 and lot.desk.read("ledger", "verify")["verified"]


def test_two_imports_at_once_enter_each_receipt_once(lot: Lot) -> None:
    bundle = lot.print_bundle()
    path = lot.write("a.receipts", *(say(make_board(), bundle) for _ in range(40)))
    command = [sys.executable, "-m", "mpserver", "--dir", str(lot.desk.state), "receipts", "import", path]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert lot.count() == 40 and lot.desk.read("ledger", "verify")["verified"]


def test_a_server_at_work_goes_on_while_receipts_are_taken_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lot = Lot(Desk(tmp_path, capsys), quota=2_000)
    bundle, ended, noted = lot.print_bundle(), threading.Event(), list[int]()

    def work() -> None:
        state = lot.open()
        while not ended.wait(0.01):  # a server waits for boards between its commits; without a pause it starves anybody
            Office(state).note("test", "at work", len(noted).to_bytes(4, "big"))
            noted.append(lot_size(state))
        state.close()

    path = lot.write("a.receipts", *(say(make_board(), bundle) for _ in range(2_000)))
    worker = threading.Thread(target=work)
    worker.start()
    told = lot.desk.read("receipts", "import", path)
    ended.set()
    worker.join()
    assert told["new"] == 2_000 and len(noted) > 5 and set(noted) <= {0, 2_000}
    assert lot.desk.read("ledger", "verify")["verified"]


def lot_size(state: State) -> int:
    return int(state.connection.execute("SELECT count(*) FROM bundle_receipts").fetchone()[0])
