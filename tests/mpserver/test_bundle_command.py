"""mpserver bundle: what is made opens on a board, nothing is left of what is refused, and a changed file is found."""

import hashlib
import io
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from mpserver.bundleinput import read_rights
from mpserver.bundleorder import Order, draft_bundle, make_bundle
from mpserver.bundleplan import Wishes
from mpserver.clock import SystemClock
from mpserver.state import open_state
from mpserver.store.products import read_products
from mpserver.uidlist import read_uids
from mpwire import bundle as wire
from mpwire import labels
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure
from mpwire.errors import MpError
from mpwire.jobsecret import read_job_secret
from mpwire.messages.bundle import BUNDLE, Bundle, Conditions
from mpwire.mpk import HiddenMpKey
from mpwire.p256 import SoftKey
from mpwire.stream import count_ciphertext
from tests.fuzz.mutation import mutate_bytes
from tests.mpserver.bundles import FILE_SLOT, KEY, NAME, PRODUCT, SRK, STATIC, Lot, open_as_board, read_frame
from tests.mpserver.desk import Desk
from tests.recovery import recover

UIDS: Final = tuple(bytes([number] * 7 + [0xFF]) for number in range(1, 4))
MIB: Final = 1024 * 1024


@pytest.fixture
def lot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lot:
    (tmp_path / "desk").mkdir()
    return Lot(tmp_path / "desk", capsys)


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lot:
    """With a slot for a large file."""
    (tmp_path / "desk").mkdir()
    return Lot(tmp_path / "desk", capsys, PRODUCT + FILE_SLOT)


def uid_list(lot: Lot, *uids: bytes) -> str:
    return lot.write("uids.txt", "# lot 1\n" + "\n".join(f"{uid.hex()}  # board" for uid in uids or UIDS))


def test_a_board_opens_what_the_oem_made(lot: Lot) -> None:
    path = lot.make()
    values = open_as_board(path)
    assert values["licence"] == STATIC and len(values["cloud"]) == 32 and "disk" not in values
    told = read_frame(path).bundle
    assert (told.product, told.job, told.authority, told.version, told.minimum) == ("camera", "lot-1", "mp", 1, 0)
    assert told.conditions == Conditions("closed", "imx8mm", bytes.fromhex(SRK))
    assert told.made_at + 30 * 86_400 == told.expires
    assert [(one.name, one.kind, one.action) for one in told.components] == [
        ("cloud", "random", "fill"),
        ("licence", "static", "fill"),
    ]
    shown = lot.read("bundle", "verify", str(path))
    assert shown["verified"] and shown["in_ledger"] and shown["quantity"] == 10 and not shown["expired"]
    tested = lot.read("bundle", "extract-test", str(path))["components"]
    assert [(one["slot"], one["result"], one["check_value"]) for one in tested] == [
        ("cloud", "PASS", "as in the ledger"),
        ("licence", "PASS", "as in the ledger"),
    ]
    (row,) = lot.read("bundle", "list")
    assert (row["version"], row["quantity"], row["digest"]) == (1, 10, shown["digest"])
    assert lot.read("ledger", "verify")["verified"]


def test_what_inspect_shows_needs_neither_key_nor_state(lot: Lot, tmp_path: Path) -> None:
    path = lot.make("--uids", uid_list(lot))
    elsewhere = Desk(tmp_path, lot._capsys)
    shown = elsewhere.read("bundle", "inspect", str(path))
    assert shown["is_whole"] and shown["uids"] == [one.hex() for one in UIDS] and len(shown["components"]) == 4
    path.write_bytes(path.read_bytes()[:-1])
    assert not elsewhere.read("bundle", "inspect", str(path))["is_whole"]
    assert elsewhere.run("bundle", "inspect", str(tmp_path / "none"))[0] == 64
    assert elsewhere.run("bundle", "inspect", elsewhere.write("x", b"mpbundle"))[0] == 76


def make_from(lot: Lot, out: str, salt: bytes) -> bytes:
    """By the function itself, where salt and values can be given."""
    state = open_state(lot.state)
    try:
        product = read_products(state.connection, state.authority)["camera"]
        order = Order(Wishes(product, "mp", 1, expires=state.clock.now() + 999), "lot-1")
        draft = draft_bundle(state, order, lambda size: salt[:size])
        fixed = draft._replace(bundle=draft.bundle._replace(made_at=1_800_000_000, expires=1_900_000_000))
        make_bundle(state, order, fixed, lot.folder / out, force=False)
    finally:
        state.close()
    return (lot.folder / out).read_bytes()


def without_signature(raw: bytes) -> bytes:
    frame = wire.read_bundle(io.BytesIO(raw))
    return raw.replace(frame.sign1.signature, b"")


def test_the_same_inputs_and_salt_give_the_same_bytes_but_for_the_signature(lot: Lot) -> None:
    one, two = make_from(lot, "one", b"\1" * 32), make_from(lot, "two", b"\1" * 32)
    assert one != two and without_signature(one) == without_signature(two)
    other = make_from(lot, "other", b"\2" * 32)
    payload = wire.read_bundle(io.BytesIO(one)).places[0].offset
    assert one[payload:] == two[payload:] != other[payload:]


def test_each_listed_board_gets_values_of_its_own(lot: Lot) -> None:
    values = lot.folder / "values"
    for uid in UIDS[:2]:
        (values / uid.hex()).mkdir(parents=True)
        (values / uid.hex() / "licence").write_bytes(b"licence of " + uid)
    path = lot.make("--uids", uid_list(lot), "--per-device", str(values))
    opened = [open_as_board(path, uid=uid) for uid in UIDS]
    assert [one["licence"] for one in opened] == [b"licence of " + UIDS[0], b"licence of " + UIDS[1], STATIC]
    assert len({one["cloud"] for one in opened}) == 3
    assert open_as_board(path, uid=b"stranger") == {}
    assert read_frame(path).bundle.conditions.uids == UIDS
    assert lot.read("bundle", "list")[0]["quantity"] == 3 and lot.read("bundle", "verify", str(path))["quantity"] == 3
    alone = lot.make("--per-device", str(values), out="b.bundle")
    assert read_frame(alone).bundle.conditions.uids == UIDS[:2]


def test_a_job_secret_opens_what_the_class_key_alone_does_not(lot: Lot) -> None:
    """T-658 Leaked key: whoever has the MP public key and the flashed image lacks what came by another way."""
    path = lot.make("--job-secret-out", str(lot.folder / "js.txt"))
    text = (lot.folder / "js.txt").read_text()
    assert (lot.folder / "js.txt").stat().st_mode & 0o777 == 0o600
    secret = read_job_secret(text)
    with pytest.raises(Exception, match="bundle-secret"):
        open_as_board(path)
    assert open_as_board(path, job_secret=secret)["licence"] == STATIC
    code, _, err = lot.run("bundle", "extract-test", str(path))
    assert code == 76 and "--job-secret-file" in err
    assert lot.read("bundle", "extract-test", str(path), "--job-secret-file", str(lot.folder / "js.txt"))["verified"]
    again = lot.make("--job-secret-file", str(lot.folder / "js.txt"), version=2, out="b.bundle")
    assert open_as_board(again, job_secret=secret)["licence"] == STATIC
    told = b"".join(part.read_bytes() for part in (path, again)) + every_byte(lot)
    assert secret.reveal() not in told and text.strip().encode() not in told
    assert secret.reveal().hex().encode() not in told


def every_byte(lot: Lot) -> bytes:
    with closing(sqlite3.connect(lot.state / "ledger.db")) as connection:
        dump = "\n".join(connection.iterdump()).lower().encode()
    return dump + b"".join(path.read_bytes() for path in sorted(lot.state.rglob("*")) if path.is_file())


def test_no_secret_is_in_the_bundle_the_ledger_or_any_output(lot: Lot) -> None:
    """T-659 Oracle: neither a value nor a digest of one, neither the MP key nor its SHA-256, neither PRK nor KEK."""
    path = lot.make()
    cloud = open_as_board(path)["cloud"]
    outputs = [lot.run(*words, *more) for words in LOOKING for more in ((), ("--json",))]
    outputs += [lot.run("bundle", verb, str(path), *more) for verb in READING for more in ((), ("--json",))]
    assert {code for code, _, _ in outputs} == {0}
    told = path.read_bytes() + every_byte(lot) + "".join(out + err for _, out, err in outputs).lower().encode()
    values = (cloud, STATIC, KEY, KEY[:32], KEY[32:])
    digests = [hashlib.sha256(one).digest() for one in (cloud, STATIC, KEY)]
    for secret in (*values, *digests, *(one[:16] for one in digests)):
        assert secret not in told and secret.hex().encode() not in told
    in_vault = b"".join(one.read_bytes() for one in (lot.state / "keys/vault").iterdir())
    prk = HiddenMpKey(KEY).extract().reveal()
    assert told.count(prk.hex().encode()) == in_vault.count(prk.hex().encode()) == 1


LOOKING: Final = (("bundle", "list"), ("ledger", "show"), ("mp", "vault", "list"), ("product", "show", "camera"))
READING: Final = ("inspect", "verify", "extract-test")


def test_no_signature_we_emit_gives_the_mp_key_away(lot: Lot) -> None:
    """T-653 Key recovery: every signature in a bundle is by a key whose public half is no secret."""
    frame = read_frame(lot.make())
    (certificate,) = frame.sign1.headers[-70103]  # type: ignore[union-attr, misc]
    from mpwire.cose import read_sign1
    from mpwire.trust import ES256_ONLY

    chain = read_sign1(certificate, typ=labels.TYP_ISSUER_CERTIFICATE, algs=ES256_ONLY)  # type: ignore[arg-type]
    found = set[bytes]()
    for one, aad in ((frame.sign1, labels.AAD_BUNDLE), (chain, labels.AAD_ISSUER_CERTIFICATE)):
        digest = hashlib.sha256(sig_structure(one.protected, aad, one.payload)).digest()
        found |= set(recover(digest, one.signature))
    state = open_state(lot.state)
    try:
        ours = {state.authority.public_key(role)[1:] for role in ("bundle", "trust")}
    finally:
        state.close()
    assert ours <= found and KEY not in found


def test_the_policy_digest_tells_nothing_of_a_static_value(lot: Lot) -> None:
    """T-660 Oracle: the manifest is read at the factory, and a product file holds values a person can guess."""
    one = read_frame(lot.make()).bundle.policy_digest
    assert one != hashlib.sha256(PRODUCT.encode()).digest()
    lot.read("product", "add", lot.write("product.toml", PRODUCT.replace(STATIC.hex(), "ff" * len(STATIC))))
    assert read_frame(lot.make(version=2, out="b.bundle")).bundle.policy_digest == one
    lot.read("product", "add", lot.write("product.toml", PRODUCT.replace("imx8mm", "imx8mp")))
    assert read_frame(lot.make(version=3, out="c.bundle")).bundle.policy_digest != one


def test_a_burnt_key_makes_bundles_under_a_job_secret_alone(lot: Lot) -> None:
    """T-653 Key recovery: once a signature was seen here, whoever has it opens what hangs on the class key alone."""
    from mpwire import mp

    key = SoftKey.generate()
    from tests.mpserver.consoles import pubk, sign_by

    name = lot.read("mp", "vault", "fingerprint", lot.write("k", key.public_key()[1:]))["fingerprint"]
    lot.read("mp", "vault", "import", str(lot.folder / "k"), "--confirm", name)
    lot.read("product", "add", lot.write("product.toml", PRODUCT.replace(NAME, name)))
    lot.make(version=1)
    log = lot.write("burnt.log", pubk(key.public_key()[1:]) + sign_by(key, b"one", mp.MPMR_OPTEE))
    assert lot.run("mp", "import-log", log)[0] == 77
    before = lot.left()
    code, _, err = lot.run(*lot.words(version=2, out="b.bundle"))
    assert code == 77 and "mp-use" in err and "--job-secret-out" in err and lot.left() == before
    lot.make("--job-secret-out", str(lot.folder / "js"), version=2, out="b.bundle")


def test_versions_go_up_and_minimums_never_fall(lot: Lot) -> None:
    """T-661 Rollback: a bundle that boards refuse is not made, or said to be for boards that saw none."""
    lot.make("--minimum", "3", version=5)
    for more, code, said in (
        (("--version", "4"), 77, "bundle-old: version 5 was made already"),
        (("--version", "2"), 77, "bundle-old: boards were told"),
        (("--version", "2", "--allow-older"), 77, "bundle-old: boards were told"),
        (("--version", "6", "--minimum", "7"), 64, "refuse itself"),
        (("--version", "6", "--minimum", "2"), 64, "a minimum never falls"),
    ):
        before = lot.left()
        ended, _, err = lot.run(*lot.words(*more, out="b.bundle"))
        assert ended == code and said in err, err
        assert lot.left() == before
    assert read_frame(lot.make("--allow-older", version=4, out="b.bundle")).bundle.minimum == 3
    assert read_frame(lot.make(version=5, out="c.bundle")).bundle.minimum == 3


def test_a_slot_never_goes_back_to_an_older_value(lot: Lot) -> None:
    """T-661 Rollback: the product file was taken from an older copy."""
    newer = PRODUCT.replace('name = "cloud"', 'name = "cloud"\nversion = 3')
    lot.read("product", "add", lot.write("product.toml", newer))
    lot.make()
    lot.read("product", "add", lot.write("product.toml", PRODUCT))
    code, _, err = lot.run(*lot.words(version=2, out="b.bundle"))
    assert code == 77 and "bundle-slot-version: slot cloud was sent as version 3" in err


WRONG: Final[tuple[tuple[tuple[str, ...], int, str], ...]] = (
    (("--product", "nothing"), 77, "no product nothing"),
    (("--job", "nothing"), 77, "no job nothing"),
    (("--job", "other-lot"), 77, "for product other"),
    (("--job", "drafted"), 77, "is draft"),
    (("--job", "gone"), 77, "is ended"),
    (("--version", "0"), 64, "from 1"),
    (("--version", "x"), 64, "from 1"),
    (("--version", "9" * 30), 64, "from 1"),
    (("--expires", "2020-01-01"), 64, "lies in the past"),
    (("--expires", "2027-02-30"), 64, "--expires"),
    (("--expires", "0"), 64, "--expires"),
    (("--expires", "soon"), 64, "--expires"),
    (("--quantity", "11"), 77, "for 10 boards"),
    (("--quantity", "0"), 64, "from 1"),
    (("--authority", "nobody"), 64, "invalid choice"),
    (("--authority", "owner", "--only", "cloud"), 77, "mpserver authority create owner"),
    (("--only", "cloud"), 64, "a first loading holds every slot"),
    (("--value", "licence"), 64, "write SLOT=FILE"),
    (("--value", "licence=nothing"), 64, "cannot read"),
    (("--value", "licence=FOLDER"), 64, "no plain file"),
    (("--value", "licence=FIFO"), 64, "no plain file"),
    (("--value", "licence=/dev/zero"), 64, "no plain file"),
    (("--value", "licence=LARGE"), 64, "kind static takes 32768"),
    (("--value", "licence=SMALL", "--value", "licence=SMALL"), 64, "given twice"),
    (("--value", "cloud=SMALL"), 64, "of kind random"),
    (("--value", "disk=SMALL"), 64, "brings no such slot"),
    (("--value", "nothing=SMALL"), 64, "brings no such slot"),
    (("--uids", "nothing"), 64, "cannot read"),
    (("--uids", "SMALL"), 64, "lists 0 UIDs"),
    (("--uids", "TWICE"), 64, ":3: this UID stood in line 1"),
    (("--uids", "GARBAGE"), 64, ":2: not a UID"),
    (("--uids", "ZEROS"), 64, ":1: not a UID"),
    (("--uids", "BINARY"), 64, "not a text of UIDs"),
    (("--uids", "MANY"), 64, "lists 4097 UIDs"),
    (("--uids", "ELEVEN"), 77, "for 10 boards"),
    (("--per-device", "nothing"), 64, "cannot read"),
    (("--per-device", "FOLDER"), 64, "is empty"),
    (("--per-device", "STRANGE"), 64, "no folder named by a UID"),
    (("--per-device", "VALUES", "--uids", "OTHERS"), 64, "not among the UIDs"),
    (("--per-device", "VALUES2"), 64, "brings no such slot"),
    (("--condition", "family=imx8mp"), 64, "is for imx8mm"),
    (("--condition", f"srk_hash={'00' * 32}"), 64, "not one of the product's"),
    (("--condition", "srk_hash=xyz"), 64, "not hexadecimal"),
    (("--condition", "life_cycle=any"), 64, "takes closed parts"),
    (("--condition", "colour=red"), 64, "--condition"),
    (("--policy", "nothing"), 64, "cannot read"),
    (("--policy", "SMALL"), 64, "policy has the tables"),
    (("--policy", "BADPOLICY"), 64, "slots.licence is not one of"),
    (("--policy", "STRANGEPOLICY"), 64, "does not have"),
    (("--job-secret-file", "SMALL"), 77, "job secret"),
    (("--job-secret-file", "BINARY"), 64, "no job secret"),
    (("--job-secret-out", "SMALL"), 64, "exists already"),
    (("--job-secret-out", "JS", "--job-secret-file", "SMALL"), 64, "one of both"),
    (("--out", "SMALL"), 64, "exists already"),
    (("--out", "JS", "--job-secret-out", "JS"), 64, "name one file"),
    (("--out", "SMALL", "--force", "--value", "licence=SMALL"), 64, "a value is read from"),
    (("--out", "FOLDER", "--force"), 64, "no plain file"),
    (("--out", "LINK", "--force"), 64, "no plain file"),
    (("--out", "/nothing/here"), 64, "no folder"),
)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people name by mistake."""
    folder = tmp_path_factory.mktemp("spoilt")
    one, two = UIDS[0].hex(), UIDS[1].hex()
    for name, text in {
        "SMALL": "",
        "TWICE": f"{one}\n{two}\n{one.upper()}\n",
        "GARBAGE": f"{one}\n{one}00\n",
        "ZEROS": "00" * 8,
        "MANY": "\n".join(f"{number:016x}" for number in range(1, 4_098)),
        "ELEVEN": "\n".join(f"{number:016x}" for number in range(1, 12)),
        "OTHERS": two,
        "BADPOLICY": '[slots]\nlicence = "factory"\n',
        "STRANGEPOLICY": '[slots]\nnothing = "owner"\n',
    }.items():
        (folder / name).write_text(text)
    (folder / "BINARY").write_bytes(b"\xff\xfe\x00")
    (folder / "LARGE").write_bytes(bytes(32_769))
    (folder / "FOLDER").mkdir()
    os.mkfifo(folder / "FIFO")
    (folder / "LINK").symlink_to("SMALL")
    (folder / "STRANGE" / "board-1").mkdir(parents=True)
    for name, slot in (("VALUES", "licence"), ("VALUES2", "nothing")):
        (folder / name / one).mkdir(parents=True)
        (folder / name / one / slot).write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a lot that is refused everything, so that nothing of it changes."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize(("more", "code", "said"), WRONG, ids=[" ".join(one[0])[:60] for one in WRONG])
def test_what_is_wrong_is_named_and_leaves_nothing(
    shared: Path, spoilt: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], code: int, said: str
) -> None:
    lot = prepare(shared, capsys)
    before = lot.left()
    words = tuple(name_in(spoilt, word) for word in more)
    ended, out, err = lot.run(*lot.words("--job-secret-out", str(shared / "js"), *words))
    if "--job-secret-file" in more:
        ended, out, err = lot.run(*lot.words(*words))
    assert (ended, out) == (code, "") and said in err and err.count("\n") == 1, err
    assert lot.left() == before


def prepare(folder: Path, capsys: pytest.CaptureFixture[str]) -> Lot:
    if (folder / "state").exists():
        lot = Lot.__new__(Lot)
        Desk.__init__(lot, folder, capsys)
        return lot
    lot = Lot(folder, capsys)
    lot.read("product", "add", lot.write("other.toml", PRODUCT.replace('"camera"', '"other"')))
    for job, product in (("other-lot", "other"), ("drafted", "camera"), ("gone", "camera")):
        lot.read("job", "create", job, "--product", product, "--quota", "1")
    lot.read("job", "approve", "other-lot")
    lot.read("job", "end", "gone")
    return lot


def name_in(folder: Path, word: str) -> str:
    slot, equals, name = word.rpartition("=")
    known = {path.name for path in folder.iterdir()} | {"JS"}
    return f"{slot}{equals}{folder / name}" if name in known else word


def test_a_product_that_is_served_over_a_line_has_no_bundles(lot: Lot) -> None:
    line = PRODUCT.replace(f'mp_use = "secret"\nmpk = "{NAME}"\nfamily = "imx8mm"\n', "").replace("camera", "meter")
    lot.read("product", "add", lot.write("line.toml", line))
    code, _, err = lot.run(*lot.words("--product", "meter"))
    assert code == 64 and "served over a line" in err
    assert lot.run("authority", "create", "owner", "--product", "meter")[0] == 64


def test_a_vault_without_the_key_makes_nothing(lot: Lot) -> None:
    lot.read("mp", "vault", "destroy", NAME, "--confirm", NAME)
    before = lot.left()
    code, _, err = lot.run(*lot.words("--job-secret-out", str(lot.folder / "js")))
    assert code == 77 and "import it first" in err and lot.left() == before


def test_a_dry_run_checks_all_and_makes_nothing(lot: Lot) -> None:
    before = lot.left()
    shown = lot.read(*lot.words("--dry-run", "--job-secret-out", str(lot.folder / "js")))
    assert not shown["made"] and shown["digest"] is None
    assert [one["slot"] for one in shown["components"]] == ["cloud", "licence"] and lot.left() == before
    assert lot.run(*lot.words("--dry-run", "--version", "0"))[0] == 64


def test_an_older_file_is_replaced_only_by_force(lot: Lot) -> None:
    path = lot.make()
    old = path.read_bytes()
    assert lot.run(*lot.words(version=2))[0] == 64 and path.read_bytes() == old
    assert read_frame(lot.make("--force", version=2)).bundle.version == 2


def test_a_full_disk_leaves_no_bundle_no_secret_and_no_entry(files: Lot) -> None:
    """T-662 Torn: the disk is full after half of the bundle; what stood there before stands there still."""
    (files.folder / "fw").write_bytes(os.urandom(3 * MIB))
    (files.folder / "a.bundle").write_bytes(b"the one before")
    words = files.words(
        "--force", "--value", f"firmware={files.folder / 'fw'}", "--job-secret-out", f"{files.folder}/js"
    )
    before = files.left()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))

    done = run_apart(files, *words, preexec_fn=limit)
    assert done.returncode == 74 and b"cannot write" in done.stderr and done.stderr.count(b"\n") == 1
    assert files.left() == before and (files.folder / "a.bundle").read_bytes() == b"the one before"


def run_apart(lot: Lot, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mpserver", "--dir", str(lot.state), *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)


def test_a_command_killed_halfway_leaves_no_bundle_and_no_entry(files: Lot) -> None:
    """T-662 Torn: killed while it writes; typed again it is whole."""
    with (files.folder / "fw").open("wb") as file:
        file.truncate(2_000 * MIB)
    words = files.words("--value", f"firmware={files.folder / 'fw'}")
    names, entries = files.left()
    with subprocess.Popen([sys.executable, "-m", "mpserver", "--dir", str(files.state), *words]) as running:
        growing, deadline = files.folder / "a.bundle.new", time.monotonic() + 30
        while not (growing.exists() and growing.stat().st_size > 20 * MIB):
            assert time.monotonic() < deadline and running.poll() is None
        running.send_signal(signal.SIGKILL)
    assert files.left() == (names | {"a.bundle.new"}, entries)
    (files.folder / "fw").write_bytes(b"small")
    assert open_as_board(files.make("--value", f"firmware={files.folder / 'fw'}"))["firmware"] == b"small"
    assert files.left() == (names | {"a.bundle"}, entries + 1)


def test_a_file_that_changes_while_it_is_sealed_makes_nothing(files: Lot) -> None:
    path = files.folder / "fw"
    path.write_bytes(bytes(1_000))
    state = open_state(files.state)
    try:
        from mpserver.bundlemaking import hand_over

        product = read_products(state.connection, state.authority)["camera"]
        wishes = Wishes(product, "mp", 1, SystemClock().now() + 99, values={"firmware": hand_over("x", path)})
        draft = draft_bundle(state, Order(wishes, "lot-1"))
        for size in (999, 1_001):
            path.write_bytes(bytes(size))
            with pytest.raises(Exception, match="changed while"):
                make_bundle(state, Order(wishes, "lot-1"), draft, files.folder / "a.bundle", force=False)
    finally:
        state.close()
    assert not list(files.folder.glob("a.bundle*")) and files.read("bundle", "list") == []


def test_two_at_once_do_not_write_one_file(lot: Lot) -> None:
    from mpserver.errors import Usage
    from mpserver.outfile import writing

    with writing(lot.folder / "a.bundle", force=False) as new:
        new.file.write(b"half")
        with pytest.raises(Usage, match="somebody else"), writing(lot.folder / "a.bundle", force=False):
            raise AssertionError
        assert (lot.folder / "a.bundle.new").read_bytes() == b"half"
    assert not list(lot.folder.glob("a.bundle*"))


def test_200_mib_stay_within_32_mib_of_memory(files: Lot) -> None:
    """T-663 Exhaustion: a component larger than the machine's memory is sealed and opened chunk by chunk."""
    with (files.folder / "fw").open("wb") as file:
        file.truncate(200 * MIB)
    idle = peak_kib(files, "bundle", "list")
    assert peak_kib(files, *files.words("--value", f"firmware={files.folder / 'fw'}")) - idle < 32 * 1024
    for verb in ("verify", "extract-test"):
        assert peak_kib(files, "bundle", verb, str(files.folder / "a.bundle")) - idle < 32 * 1024


def peak_kib(lot: Lot, *words: str) -> int:
    """Of a process of its own."""
    code = (
        "import resource, sys; from mpserver.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--dir", str(lot.state), *words], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def changes() -> list[tuple[str, Any]]:
    """Another value for every field of a manifest."""
    return [
        ("realm", "production"),
        ("product", "other"),
        ("job", "lot-2"),
        ("authority", "oem"),
        ("version", 2),
        ("minimum", 1),
        ("made_at", 1_800_000_000),
        ("expires", 2**40),
        ("conditions", Conditions("any", "imx8mm", bytes.fromhex(SRK))),
        ("salt", bytes(32)),
        ("components", None),
        ("policy_digest", bytes(32)),
        ("digests", None),
        ("key_check", bytes(16)),
        ("secret_id", bytes(8)),
    ]


def spoil(told: Bundle, field: str, value: Any) -> Bundle:
    if field == "components":
        first = told.components[0]
        value = (first._replace(destination="plain"), *told.components[1:])
    if field == "digests":
        value = told.digests[::-1]
    return told._replace(**{field: value})


@pytest.mark.parametrize(("field", "value"), changes(), ids=[name for name, _ in changes()])
def test_every_field_of_a_manifest_is_under_the_signature(lot: Lot, field: str, value: Any) -> None:
    """T-664 Tampering: a field changed and the signature kept; or signed anew, by a stranger and by a stolen key."""
    assert {name for name, _ in changes()} == set(Bundle._fields)
    path = lot.make()
    frame, raw = read_frame(path), path.read_bytes()
    payload = BUNDLE.encode(spoil(frame.bundle, field, value))
    kept = join_sign1(frame.sign1.protected, {}, payload, frame.sign1.signature)
    path.write_bytes(assemble(kept) + raw[frame.places[0].offset :])
    assert lot.run("bundle", "verify", str(path))[0] in (76, 77)
    stranger = SoftKey.generate()
    message = sig_structure(frame.sign1.protected, labels.AAD_BUNDLE, payload)
    signed = join_sign1(frame.sign1.protected, {}, payload, stranger.sign(message))
    path.write_bytes(assemble(signed) + raw[frame.places[0].offset :])
    assert lot.run("bundle", "verify", str(path))[0] in (76, 77)
    state = open_state(lot.state)
    try:
        stolen = join_sign1(frame.sign1.protected, {}, payload, state.authority.sign("bundle", message))
    finally:
        state.close()
    path.write_bytes(assemble(stolen) + raw[frame.places[0].offset :])
    assert lot.run("bundle", "verify", str(path))[0] in (76, 77)
    assert lot.run("bundle", "extract-test", str(path))[0] in (76, 77)


def assemble(envelope: bytes) -> bytes:
    return wire.MAGIC + len(envelope).to_bytes(4, "big") + envelope


def test_a_bundle_of_ours_that_the_ledger_does_not_know_is_told(lot: Lot) -> None:
    """T-665 Stolen key: signed by our key, and nobody made it here; or the ledger was put back."""
    path = lot.make()
    frame, raw = read_frame(path), path.read_bytes()
    message = sig_structure(frame.sign1.protected, labels.AAD_BUNDLE, frame.sign1.payload)
    state = open_state(lot.state)
    try:
        again = join_sign1(frame.sign1.protected, {}, frame.sign1.payload, state.authority.sign("bundle", message))
    finally:
        state.close()
    path.write_bytes(assemble(again) + raw[frame.places[0].offset :])
    shown = lot.read("bundle", "verify", str(path), code=77)
    assert shown["verified"] and not shown["in_ledger"]
    code, out, _ = lot.run("bundle", "extract-test", str(path))
    assert code == 77 and "NOT in the ledger" in out


def test_components_swapped_between_bundles_are_found(lot: Lot) -> None:
    """T-642 Swap: at the OEM too, and in the same words."""
    one, two = lot.make(), lot.make(version=2, out="b.bundle")
    place = read_frame(two).places[0]
    raw = two.read_bytes()
    own = read_frame(one).places[0]
    spoilt = one.read_bytes()[: own.offset] + raw[place.offset : place.offset + place.length]
    one.write_bytes(spoilt + one.read_bytes()[own.offset + own.length :])
    code, _, err = lot.run("bundle", "verify", str(one))
    assert code == 76 and "bundle-payload" in err and str(one) in err


def test_cut_and_lengthened_files_are_found(lot: Lot) -> None:
    path = lot.make()
    raw = path.read_bytes()
    for spoilt in (*(raw[:end] for end in range(0, len(raw), 97)), raw + b"\0", raw[:-1]):
        path.write_bytes(spoilt)
        code, _, err = lot.run("bundle", "verify", str(path))
        assert code == 76 and err.count("\n") == 1


def test_a_bundle_of_another_server_is_not_ours(lot: Lot, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Lot(tmp_path / "other", lot._capsys)
    code, _, err = lot.run("bundle", "verify", str(other.make()))
    assert code == 76 and "issuer-root" in err and "another server" in err


def test_the_file_is_as_long_as_its_manifest_says(files: Lot) -> None:
    for size in (0, 1, 65_535, 65_536, 65_537):
        (files.folder / "fw").write_bytes(os.urandom(size))
        path = files.make("--force", "--value", f"firmware={files.folder / 'fw'}")
        frame = read_frame(path)
        assert path.stat().st_size == frame.end and frame.places[2].length == count_ciphertext(size)
        assert open_as_board(path)["firmware"] == (files.folder / "fw").read_bytes()


def test_bent_lists_and_policies_are_taken_or_an_error_of_ours(tmp_path: Path) -> None:
    uids = b"# lot\n0011223344556677\n8899aabbccddeeff00112233445566ff # b\n0xffeeddccbbaa9988\n"
    policy = b'[slots]\nlicence = "owner"\n"a b" = "oem"\n[minimums]\nowner = 3\nservice = 0\n'
    random, path = Random(7), tmp_path / "handed"
    for _ in range(400):
        for sample, read in ((uids, read_uids), (policy, read_rights)):
            path.write_bytes(mutate_bytes(sample, random))
            with suppress(MpError):
                read(path)


def test_completion_knows_the_new_commands(lot: Lot) -> None:
    script = lot.run("completion", "bash")[1]
    words = ("extract-test", "--job-secret-out", "--per-device", "export-public", "fingerprint", '"mp vault import"')
    assert all(word in script for word in words)
    assert encode([]) == b"\x80"
