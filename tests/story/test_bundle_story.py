"""A lot without a line: the OEM's commands, a board's, and the receipt on its way back. Every process is a real one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mpsim import board
from mpwire import labels
from mpwire.bundlereceipt import read_receipt, split_receipts
from mpwire.cose import read_sign1, sig_structure
from mpwire.trust import ES256_ONLY
from tests.mpserver.bundles import FILE_SLOT, KEY, NAME, PRODUCT, RECORD, STATIC, update_slot
from tests.mpserver.server import run_tool
from tests.recovery import recover

REFUSED = 77


class Factory:
    """An OEM's folder, and boards that only get what is carried to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "oem"
        self.office("init", "--realm", "lab")
        self.office("mp", "vault", "import", self.write("key.json", json.dumps(RECORD)), "--confirm", NAME, "--wipe")
        self.office("product", "add", self.write("camera.toml", PRODUCT + FILE_SLOT + update_slot("owner")))
        self.office("authority", "create", "owner", "--product", "camera")
        self.office("job", "create", "lot-1", "--product", "camera", "--quota", "5")
        self.office("job", "approve", "lot-1")

    def write(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def office(self, *words: str, code: int = 0) -> Any:
        done = run_tool("mpserver", "--dir", str(self.state), *words, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def make(self, name: str, version: int, *more: str) -> str:
        told = ("--product", "camera", "--job", "lot-1", "--version", str(version), "--expires", "30")
        out = str(self.folder / name)
        self.office("bundle", "create", *told, "--out", out, *more)
        return out

    def flash(self, name: str, **plan: Any) -> Path:
        """A board's disk, with the provisioning image."""
        board.make_board(self.folder / name, board.BoardPlan(closed=True, **plan))
        root = self.folder / name / "disk"
        chip = ("--sim-chip", str(self.folder / name / "chip"))
        anchors = self.office("product", "anchors", "camera", *chip)["anchors"]
        (root / "usr/lib/mpagent").mkdir(parents=True, exist_ok=True)
        (root / "usr/lib/mpagent/anchors.toml").write_text(anchors)
        return root

    def apply(self, root: Path, bundle: str, *more: str, code: int = 0) -> str:
        done = run_tool("mpagent", "--root", str(root), "offline", "apply", bundle, *more)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def secret(self, root: Path, name: str) -> bytes:
        done = run_tool("mpagent", "--root", str(root), "secret", "get", "--hex", name)
        assert done.returncode == 0, done.stderr
        return bytes.fromhex(done.stdout)


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(tmp_path)


def test_a_lot_is_provisioned_updated_and_accounted_for_without_a_line(factory: Factory) -> None:
    firmware = factory.write("firmware", bytes(range(256)) * 1_000)
    policy = factory.write("policy.toml", '[slots]\nlicence = "owner"\n')
    secret = str(factory.folder / "job-secret")
    more = ("--value", f"firmware={firmware}", "--policy", policy, "--job-secret-out", secret)
    first = factory.make("first.mpbundle", 1, *more)
    one, two = factory.flash("one"), factory.flash("two")

    assert "job secret" in factory.apply(one, first, code=REFUSED)  # the image alone is worthless
    for root in (one, two):
        factory.apply(root, first, "--job-secret-file", secret)
        assert factory.secret(root, "licence") == STATIC
        assert factory.secret(root, "firmware") == Path(firmware).read_bytes()
    assert factory.secret(one, "cloud") == factory.secret(two, "cloud") != b""
    assert factory.secret(one, "disk") != factory.secret(two, "disk")

    value = factory.write("licence", b"renewed")
    only = ("--authority", "owner", "--only", "licence", "--value", f"licence={value}")
    update = factory.make("update.mpbundle", 2, *only)
    factory.apply(one, update)
    assert factory.secret(one, "licence") == b"renewed" and factory.secret(two, "licence") == STATIC
    older = factory.make("older.mpbundle", 1, *only, "--allow-older")
    assert "older than" in factory.apply(one, older, code=REFUSED)
    assert factory.secret(one, "licence") == b"renewed"

    receipts = factory.folder / "lot.receipts"
    joined = b""
    for root in (one, two):
        done = run_tool("mpagent", "--root", str(root), "offline", "receipts", "--output", str(receipts))
        assert done.returncode == 0, done.stderr
        joined += receipts.read_bytes()
    receipts.write_bytes(joined)
    taken = factory.office("receipts", "import", str(receipts))
    assert (taken["receipts"], taken["new"]) == (3, 3) and not taken["conflicts"]
    assert factory.office("ledger", "verify")["verified"]


def test_boards_of_a_list_open_their_own_and_no_other_board_does(factory: Factory) -> None:
    """T-658 Leaked key: a board that is not on the list, or of another class, gets nothing of the bundle."""
    firmware = factory.write("firmware", b"small")
    listed = (b"\1" * 7 + b"\2", b"\3" * 7 + b"\4")
    one, two = (factory.flash(name, uid=uid) for name, uid in zip(("one", "two"), listed, strict=True))
    three, other = factory.flash("three"), factory.flash("other", srk_hash=bytes(range(32)))
    uids = factory.write("uids", "\n".join(uid.hex() for uid in listed))
    bundle = factory.make("lot.mpbundle", 1, "--value", f"firmware={firmware}", "--uids", uids)
    for root in (one, two):
        factory.apply(root, bundle)
    assert factory.secret(one, "cloud") != factory.secret(two, "cloud")
    for root in (three, other):
        factory.apply(root, bundle, code=REFUSED)
        assert run_tool("mpagent", "--root", str(root), "secret", "get", "--hex", "cloud").returncode != 0


def test_a_board_of_such_a_product_never_says_hello(factory: Factory) -> None:
    """T-76 Key recovery: enroll on such an image asks no server, and so signs nothing with the class key."""
    root = factory.flash("one")
    (root / "etc/mpagent").mkdir(parents=True, exist_ok=True)
    (root / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:9"\n')
    done = run_tool("mpagent", "--root", str(root), "enroll", "--once")
    assert done.returncode in (69, 78) and "127.0.0.1" not in done.stderr.replace("mpagent.toml", "")


def test_nothing_that_leaves_the_board_or_the_office_gives_the_key_away(factory: Factory) -> None:
    """T-655 Oracle: bundle, receipts, disk, ledger and every answer; each signature in them is by another key."""
    firmware = factory.write("firmware", b"small")
    bundle, root = factory.make("a.mpbundle", 1, "--value", f"firmware={firmware}"), factory.flash("one")
    said = factory.apply(root, bundle)
    receipts = factory.folder / "a.receipts"
    for words in (
        ("mpagent", "--root", str(root), "offline", "receipts", "--output", str(receipts)),
        ("mpagent", "--root", str(root), "offline", "status", "--json"),
        ("mpagent", "--root", str(root), "status", "--json"),
        ("mpagent", "--root", str(root), "doctor", "--json"),
        ("mpserver", "--dir", str(factory.state), "receipts", "import", str(receipts), "--json"),
        ("mpserver", "--dir", str(factory.state), "receipts", "report", "--json"),
        ("mpserver", "--dir", str(factory.state), "doctor", "--json"),
        ("mpserver", "--dir", str(factory.state), "bundle", "extract-test", bundle, "--json"),
    ):
        done = run_tool(*words)
        said += done.stdout + done.stderr
    files = [path for folder in (root, factory.state) for path in sorted(folder.rglob("*")) if path.is_file()]
    told = b"".join(path.read_bytes() for path in (*files, receipts, Path(bundle))) + said.lower().encode()
    for secret in (KEY, KEY[:32], KEY[32:], hashlib.sha256(KEY).digest(), hashlib.sha256(b"\x04" + KEY).digest()):
        assert secret not in told and secret.hex().encode() not in told

    with receipts.open("rb") as file:
        (row,) = split_receipts(file)
    heard = read_receipt(row)
    envelope = read_sign1(heard.signed, typ=labels.TYP_BUNDLE_RECEIPT, algs=ES256_ONLY)
    covered = sig_structure(envelope.protected, labels.AAD_BUNDLE_RECEIPT, envelope.payload)
    found = recover(hashlib.sha256(covered).digest(), envelope.signature)
    assert heard.receipt.key[1:] in found and KEY not in found
