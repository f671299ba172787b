"""A board as it will be: class key through OP-TEE, fuses through the kernel, and no signature anywhere."""

import io
import re
from pathlib import Path

from mpagent.hal.mp.door import PTA
from mpwire.bundlereceipt import read_receipt, split_receipts
from tests.mpagent.doctor_bench import imx_board
from tests.mpagent.test_cli import Counter, counter
from tests.mpagent.test_mp_secret import SHOWN, keep_secret, run
from tests.offline.bench import find_leaks
from tests.offline.maker import Item, Maker

from ..mpagent.conftest import authority, make_peer

__all__ = ["authority", "counter", "make_peer"]  # fixtures
ITEMS = (Item("cloud", "random", b"a value of this board's own"), Item("licence", "static", b"licence"))


def prepare(disk: Path, maker: Maker) -> Path:
    """The image of this maker's product, and a stick; the bundle's place on it."""
    keep_secret(disk)
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(re.sub(r"(?m)^roots = .*$", f'roots = ["{maker.root.public_key().hex()}"]', anchors.read_text()))
    (disk / "etc/mpagent/mpagent.toml").write_text('bundle = "/media"\nreceipts = "/media"\n')
    (disk / "media").mkdir()
    return disk / "media/one.mpbundle"


def test_board_over_optee_takes_a_bundle_and_no_signature_is_asked_for(
    counter: Counter, maker: Maker, tmp_path: Path
) -> None:
    """T-676 From first boot to a failing one: whatever the run meets, OP-TEE hears of no signing command."""
    with imx_board(counter, tmp_path / "board") as (disk, tee):
        place = prepare(disk, maker)
        tee.break_next("NOT_SUPPORTED", command=1, uuid=str(PTA), times=None)
        place.write_bytes(maker.make(ITEMS))
        failed = run(disk, tee, "enroll", "--once")
        assert failed.returncode == 74 and b"no MP key after boot" in failed.stderr
        tee.change(faults=())
        done = run(disk, tee, "--debug", "enroll", "--once")
        assert done.returncode == 0, done.stderr
        again = run(disk, tee, "enroll", "--once")
        assert again.returncode == 0, again.stderr
        assert run(disk, tee, "secret", "get", "licence").stdout == b"licence"
        assert tee.count_signatures() == 0
        (path,) = (disk / "media").glob("*.receipts")
        (row,) = split_receipts(io.BytesIO(path.read_bytes()))
        receipt = read_receipt(row).receipt
        assert (receipt.closed_proof, receipt.life_cycle) == ("mp-key", 3)
        kept = b"".join(one.read_bytes() for one in (disk / "var").rglob("*") if one.is_file())
        said = failed.stderr + done.stdout + done.stderr + again.stderr
        assert find_leaks(kept + said + path.read_bytes(), *SHOWN) == []


def test_open_board_over_optee_takes_nothing(counter: Counter, maker: Maker, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "board", closed=False) as (disk, tee):
        place = prepare(disk, maker)
        place.write_bytes(maker.make(ITEMS))
        done = run(disk, tee, "enroll", "--once")
        assert done.returncode == 77 and done.stdout == b"FAIL bundle-life-cycle\n"
        assert tee.count_signatures() == 0
