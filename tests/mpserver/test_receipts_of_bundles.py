"""Receipts held against bundles as `bundle create` makes them: what a board opened, and under which key."""

import hashlib
from pathlib import Path

import pytest

from mpwire import bundlekeys, hkdf
from mpwire.bundlekeys import Expand
from mpwire.bundlereceipt import write_receipt
from mpwire.messages.bundle import UPDATE_KEY, BundleReceipt
from mpwire.messages.grant import SlotReceipt, make_check_value
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret
from tests.mpserver.bundles import KEY, NAME, PRODUCT, Lot, open_as_board, read_frame, update_slot
from tests.mpserver.lots import OfflineBoard, make_board
from tests.mpserver.test_legacy import VALUE, encrypt


def by_class_key(info: bytes) -> Secret:
    return hkdf.expand(HiddenMpKey(KEY).extract(), info)


def by_update_key(value: bytes) -> Expand:
    key = UPDATE_KEY.decode(value, 32_768).key
    return lambda info: hkdf.expand(key, info)


def answer(board: OfflineBoard, path: Path, expand: Expand, values: dict[str, bytes] | None = None) -> bytes:
    """As mpagent writes it; `values` where the board holds others than the bundle brought."""
    frame = read_frame(path)
    bundle = frame.bundle
    held = values or open_as_board(path, expand, board.uid)
    check_key = bundlekeys.make_check_key(bundlekeys.make_kek(bundle, expand, None))
    versions = {one.name: one.version for one in bundle.components}
    receipt = BundleReceipt(
        bundle_digest=frame.digest,
        ueid=board.ueid,
        key=board.key.public_key(),
        hardware_ids={"imx-uid": board.uid},
        product=bundle.product,
        job=bundle.job,
        authority=bundle.authority,
        version=bundle.version,
        slots=tuple(
            SlotReceipt(name, "sim", versions[name], make_check_value(check_key, name, versions[name], Secret(value)))
            for name, value in held.items()
            if name in versions and name != "policy"
        ),
        skipped=(),
        rollback="none",
        closed_proof="mp-key",
        agent_version="1.0",
        life_cycle=3,
    )
    return write_receipt(receipt, board.key.sign, bundlekeys.make_receipt_key(expand, bundle.product, bundle.job))


def hand_in(lot: Lot, *receipts: bytes, code: int = 0) -> list[str]:
    """Names of conflicts, or of what keeps the file out."""
    told = lot.read("receipts", "import", lot.write("a.receipts", b"".join(receipts)), code=code)
    return [one["conflict"] for one in told["conflicts"]] or [one["said"] for one in told["failed"]]


def test_what_boards_of_a_list_opened_is_what_was_printed_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lot = Lot(tmp_path, capsys, PRODUCT + update_slot("oem"))
    lot.read("authority", "create", "oem", "--product", "camera")
    boards = [make_board() for _ in range(3)]
    uids = lot.write("uids", "\n".join(one.uid.hex() for one in boards))
    policy = lot.write("policy.toml", '[slots]\nlicence = "oem"\n')
    path = lot.make("--uids", uids, "--policy", policy)
    assert hand_in(lot, *(answer(one, path, by_class_key) for one in boards[:2])) == []
    others = open_as_board(path, by_class_key, boards[0].uid)
    assert hand_in(lot, answer(boards[2], path, by_class_key, others), code=77) == ["check-value"]
    report = lot.read("receipts", "report", code=77)
    assert (report["bundles"][0]["quantity"], report["bundles"][0]["boards"]) == (3, 3)


@pytest.mark.parametrize("per_device", [(), ("--per-device",)])
def test_an_update_is_answered_under_the_key_that_it_is_under(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], per_device: tuple[str, ...]
) -> None:
    """T-718 Replay: the key of another board, or the class key, makes no receipt of this board's update."""
    lot = Lot(tmp_path, capsys, PRODUCT + update_slot("oem"))
    lot.read("authority", "create", "oem", "--product", "camera", *per_device)
    boards = [make_board() for _ in range(2)]
    first = lot.make("--uids", lot.write("uids", "\n".join(one.uid.hex() for one in boards)))
    keys = [by_update_key(open_as_board(first, by_class_key, one.uid)["update-oem"]) for one in boards]
    value = lot.write("licence", b"a new licence")
    told = ("--authority", "oem", "--only", "licence", "--value", f"licence={value}")
    update = lot.make(*told, "--uids", lot.write("one", boards[0].uid.hex()), out="update")
    good = answer(boards[0], update, keys[0])
    wrong = answer(boards[0], update, by_class_key, {"licence": b"a new licence"})
    assert "receipt-mac" in hand_in(lot, wrong, code=65)[0]
    if per_device:
        wrong = answer(boards[0], update, keys[1], {"licence": b"a new licence"})
        assert "receipt-mac" in hand_in(lot, wrong, code=65)[0]
    assert hand_in(lot, good) == []
    (told_of,) = lot.read("receipts", "report")["boards"]
    assert told_of["versions"] == {"oem": 1}


def test_a_value_out_of_an_old_file_reaches_boards_in_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old way's end: convert, create, and what a board opens is what openssl had encrypted."""
    slot = '\n[[slot]]\nname = "disk-key"\nkind = "static"\n'
    lot = Lot(tmp_path, capsys, PRODUCT + slot)
    old = lot.write("old.bin", encrypt(VALUE, hashlib.sha256(KEY).hexdigest()))
    key, out = lot.write("key.bin", KEY), str(tmp_path / "value")
    words = ("legacy", "convert", old, "--key-file", key, "--slot", "disk-key", "--out", out)
    lot.read(*words, "--confirm", NAME)
    path = lot.make("--value", f"disk-key={out}")
    assert open_as_board(path)["disk-key"] == VALUE
