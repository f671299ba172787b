"""The program as an operator starts it on a line without a network."""

import json
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpsim.board import BoardPlan
from mpwire import bundlekeys
from mpwire.jobsecret import write_job_secret
from tests.mpagent.conftest import mounted
from tests.offline.bench import API_KEY, ITEMS, MODEL, OEM, SLOTS, find_leaks, list_hidden
from tests.offline.maker import JOB_SECRET, Item, Maker
from tests.offline.shell import Shell

SECRET_TEXT = write_job_secret(JOB_SECRET)


@pytest.fixture
def shell(tmp_path: Path, maker: Maker) -> Iterator[Shell]:
    """Whatever was done on it, neither disk nor standing nor receipts hold a key or a value in the clear."""
    made = Shell(tmp_path / "board", maker)
    yield made
    hidden = (*list_hidden(maker, (JOB_SECRET, OEM.key)), API_KEY, MODEL[:32])
    assert find_leaks(made.everything(), *hidden) == []


def test_line_without_a_network(shell: Shell, maker: Maker) -> None:
    """Flash, boot, PASS; boot again, PASS; what came out is what went in, and the receipt lies on the medium."""
    shell.put(maker.make(ITEMS, version=7))
    done = shell.run("enroll", "--once")
    assert done.returncode == 0, done.stderr.decode()
    word, ueid, *rest = done.stdout.decode().split(" ")
    assert word == "PASS" and " ".join(rest) == "5 slots, bundles mp 7\n"
    assert [one.name for one in shell.receipts.iterdir()] == [f"{ueid}-7.receipts"]

    assert shell.run("secret", "get", "api-key").stdout == API_KEY
    assert shell.run("secret", "get", "model").stdout == MODEL
    assert shell.run("secret", "get", "--hex", "model").stdout == MODEL.hex().encode() + b"\n"
    assert shell.run("secret", "get", "update-oem").returncode == 64
    listed = shell.run("secret", "list").stdout.decode()
    assert "model" in listed and "update-key" in listed

    again = json.loads(shell.run("enroll", "--once", "--json").stdout)
    assert again["result"] == "PASS" and again["bundle_versions"] == {"mp": 7} and again["receipt_exported"]
    status = json.loads(shell.run("offline", "status", "--json").stdout)
    assert status["authorities"] == {"mp": {"version": 7, "minimum": 0}} and status["job"] == "lot-1"
    assert status["class_key"] == f"mpk-{bundlekeys.make_mpk_id(maker.expand).hex()}"
    stood = json.loads(shell.run("status", "--json").stdout)
    assert (stood["stage"], stood["ueid"], stood["latched"]) == ("applied", ueid, None)
    assert stood["last_run"]["state"] == "pass"


def test_waiting_for_a_bundle_ends_when_it_is_there(shell: Shell, maker: Maker) -> None:
    """As a board waits for a server: no failure, and no hurry."""
    (shell.media).rmdir()
    process = subprocess.Popen(shell.command("enroll"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        standing = shell.disk / "run/mpagent/standing"
        wait_for(lambda: standing.exists() and json.loads(standing.read_text())["state"] == "waiting")
        assert "no bundle yet at" in json.loads(standing.read_text())["text"]
        shell.media.mkdir()
        shell.put(maker.make(ITEMS), ".copying")
        (shell.media / ".copying").rename(shell.media / "a.mpbundle")
        out, error = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0 and out.startswith(b"PASS "), error.decode()


def wait_for(what: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_there_is_no_failure_of_the_board(shell: Shell) -> None:
    done = shell.run("enroll", "--once")
    assert done.returncode == 69 and done.stdout == b"FAIL NoBundle\n"
    shell.set("")
    done = shell.run("enroll", "--once")
    assert done.returncode == 78 and b'bundle = "/PATH"' in done.stderr


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.getcwd()
        os.chdir(path.parent)
        listener.bind(path.name)
        os.chdir(where)


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda path: path.write_bytes(b""), 76, b"no bundle, or it is cut off"),
        (lambda path: path.write_bytes(os.urandom(100_000)), 76, b"no bundle, or it is cut off"),
        (lambda path: path.write_bytes(bytes(100_000)), 76, b"no bundle, or it is cut off"),
        (make_fifo, 76, b"is no file and no block device"),
        (Path.mkdir, 76, b"is no file and no block device"),
        (make_loop, 74, b"Too many levels of symbolic links"),
        (make_socket, 69, b"no bundle"),
        (lambda path: path.symlink_to("/dev/zero"), 76, b"is no file and no block device"),
        (lambda path: None, 69, b"is not there"),
    ],
)
def test_what_is_no_bundle_is_refused_and_not_waited_for(
    shell: Shell, maker: Maker, make: Callable[[Path], None], code: int, said: bytes
) -> None:
    """T-686 Garbage: an empty file, noise, a pipe, a folder, a loop of links, a device without an end."""
    path = shell.folder / "bundle"
    make(path)
    done = shell.run("offline", "apply", str(path), timeout_s=20)
    assert done.returncode == code and said in done.stderr and done.stdout == b""
    assert shell.state() == {}
    good = shell.put(maker.make(ITEMS), "good")
    assert shell.run("offline", "apply", str(good)).returncode == 0


def test_bad_file_on_the_medium_stops_no_board(shell: Shell, maker: Maker) -> None:
    """T-686 Denial: a stick with noise beside the bundle; and later noise alone, on a board that is provisioned."""
    os.mkfifo(shell.media / "0.mpbundle")
    shell.put(b"noise", "1.mpbundle")
    shell.put(maker.make(ITEMS, product="toaster"), "2.mpbundle")
    done = shell.run("enroll", "--once")
    assert done.returncode == 77 and done.stdout == b"FAIL bundle-product\n"
    shell.put(maker.make(ITEMS), "3.mpbundle")
    done = shell.run("enroll", "--once")
    assert done.returncode == 0 and b"is for another product" in done.stderr, done.stderr
    (shell.media / "3.mpbundle").unlink()
    assert shell.run("enroll", "--once").stdout.startswith(b"PASS ")


def test_apply_says_what_it_did_and_what_it_would_do(shell: Shell, maker: Maker) -> None:
    first = shell.put(maker.make(ITEMS), "first")
    would = shell.run("offline", "apply", "--dry-run", str(first))
    assert would.stdout == b"WOULD mp version 1: filled api-key, model, update-oem, update-owner; made disk\n"
    assert shell.state() == {}
    did = json.loads(shell.run("offline", "apply", "--json", str(first)).stdout)
    assert (did["result"], did["filled"][0], did["closed_proof"]) == ("APPLIED", "api-key", "mp-key")
    items = [Item("api-key", "static", b"n", 2, "replace"), Item("model", "file", b"n", 2)]
    update = shell.put(maker.make(items, maker.under(OEM)), "update")
    text = shell.run("offline", "apply", str(update)).stdout.decode()
    assert text.endswith(" oem version 1: replaced api-key; skipped model\n") and text.startswith("APPLIED ")
    assert shell.run("offline", "apply", str(update)).stdout.endswith(b"taken before, nothing to do\n")
    joined = shell.run("offline", "receipts").stdout
    assert joined == b"".join(path.read_bytes() for path in sorted(shell.receipts.iterdir()))
    assert shell.run("offline", "receipts", "--output", str(shell.folder / "all")).returncode == 0
    assert (shell.folder / "all").read_bytes() == joined
    lost = shell.run("offline", "receipts", "--output", str(shell.folder / "nowhere/all"))
    assert lost.returncode == 73 and b"No such file or directory; name a file" in lost.stderr


def test_refusal_is_an_object_for_scripts(shell: Shell, maker: Maker) -> None:
    path = shell.put(maker.make(ITEMS, product="toaster"), "b")
    done = shell.run("offline", "apply", "--json", str(path))
    told = json.loads(done.stdout)
    assert done.returncode == told["error"]["exit_code"] == 77 and told["result"] == "FAIL"
    assert told["error"]["check"] == "bundle-product" and told["error"]["next"] and told["error"]["retry"] == "operator"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("offline",), b"VERB"),
        (("offline", "apply"), b"BUNDLE"),
        (("offline", "apply", "x", "--job-secret", "MPJS1:AAAA"), b"--job-secret"),
        (("offline", "apply", "x", "--job-secret-file", "a", "--job-secret-prompt"), b"not allowed with"),
        (("offline", "apply", "x", "--job-secret-prompt"), b"needs a terminal"),
    ],
)
def test_wrong_command_line_is_told(shell: Shell, words: tuple[str, ...], said: bytes) -> None:
    done = shell.run(*words)
    assert done.returncode == 64 and said in done.stderr and done.stdout == b""


def test_job_secret_by_file_settings_and_credential(shell: Shell, maker: Maker) -> None:
    """Three ways in, none of them an argument; a wrong one beside the right one is passed over."""
    path = shell.put(maker.make(ITEMS, job_secret=JOB_SECRET), "b")
    secret = shell.disk / "job-secret"
    missing = shell.run("offline", "apply", str(path))
    assert missing.returncode == 77 and b"needs a job secret" in missing.stderr
    secret.write_text(SECRET_TEXT[:-1])
    mistyped = shell.run("offline", "apply", str(path), "--job-secret-file", str(secret))
    assert mistyped.returncode == 77 and SECRET_TEXT[6:14].encode() not in mistyped.stderr
    secret.write_text(SECRET_TEXT + "\n")
    trial = shell.run("offline", "apply", str(path), "--dry-run", "--job-secret-file", str(secret))
    assert trial.returncode == 0, trial.stderr
    shell.set('job_secret_file = "/job-secret"\n')
    assert shell.run("offline", "apply", "--dry-run", str(path)).returncode == 0
    shell.set("")
    credentials = shell.folder / "credentials"
    credentials.mkdir()
    (credentials / "mpagent-job-secret").write_text(SECRET_TEXT)
    done = shell.run("offline", "apply", str(path), environment={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert done.returncode == 0, done.stderr
    assert JOB_SECRET.reveal() not in shell.everything()


def test_job_secret_scanned_at_the_terminal_is_not_echoed(shell: Shell, maker: Maker) -> None:
    """A scanner types like a keyboard: first with a character lost, then whole; nothing of it is on the screen."""
    path = shell.put(maker.make(ITEMS, job_secret=JOB_SECRET), "b")
    process, terminal = pty.fork()
    if process == 0:
        command = shell.command("offline", "apply", str(path), "--job-secret-prompt")
        os.execv(command[0], command)
    seen = b""
    for line in (SECRET_TEXT[:-1], SECRET_TEXT):
        count = seen.count(b"job secret (scan")
        while seen.count(b"job secret (scan") == count:
            seen += os.read(terminal, 1024)
        os.write(terminal, line.encode() + b"\n")
    try:
        while part := os.read(terminal, 1024):
            seen += part
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, seen
    assert b"APPLIED " in seen and b"are missing" in seen and SECRET_TEXT[6:14].encode() not in seen


def test_no_secret_and_no_key_is_on_the_disk_or_in_what_is_said(shell: Shell, maker: Maker) -> None:
    """T-677 Leak: class key, its digest, PRK, K1, KEK, job secret and values, after runs of every end."""
    draft = maker.plan(ITEMS)._replace(secret_id=bundlekeys.name_secret(JOB_SECRET))
    raw = maker.seal(draft, [one.plain for one in ITEMS], maker.first(), JOB_SECRET)
    path = shell.put(raw, "b")
    secret = shell.folder / "secret"
    secret.write_text(SECRET_TEXT)
    said = b""
    for words in (
        ("--debug", "offline", "apply", str(path)),
        ("--debug", "offline", "apply", "--dry-run", str(path), "--job-secret-file", str(secret)),
        ("--debug", "offline", "apply", str(path), "--job-secret-file", str(secret)),
        ("--debug", "enroll", "--once", "--json"),
        ("status", "--json"),
        ("offline", "status", "--json"),
        ("evidence", "--json"),
        ("doctor", "--json"),
        ("secret", "list", "--json"),
    ):
        done = shell.run(*words)
        said += done.stdout + done.stderr
    assert b"PASS" in said and b'"class_key": "mpk-' in said
    kek = bundlekeys.make_kek(draft, maker.expand, JOB_SECRET)
    k1 = maker.expand(bundlekeys.make_info(draft))
    hidden = (*list_hidden(maker, (kek, k1, JOB_SECRET)), API_KEY, OEM.key.reveal(), MODEL[:32])
    assert find_leaks(said + shell.everything(), *hidden) == []
    assert find_leaks(hidden[5], *hidden) != []  # the search can find


def test_command_line_of_the_process_names_no_secret(shell: Shell, maker: Maker) -> None:
    path = shell.folder / "bundle"
    os.mkfifo(shell.folder / "pipe")
    path.write_bytes(maker.make(ITEMS, job_secret=JOB_SECRET))
    secret = shell.folder / "secret"
    secret.write_text(SECRET_TEXT)
    log = shell.folder / "calls"
    done = shell.run(
        "offline", "apply", str(path), "--job-secret-file", str(secret),
        prefix=("strace", "-f", "-qq", "-s", "4096", "-e", "trace=execve", "-v", "-o", str(log)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = log.read_bytes()
    assert b"job-secret-file" in told and SECRET_TEXT[6:14].encode() not in told


def test_production_image_serves_what_bundles_brought(shell: Shell, maker: Maker) -> None:
    """The MP engine is shut there: the board unseals every slot live, says PASS, and takes updates alone."""
    shell.put(maker.make(ITEMS))
    assert shell.run("enroll", "--once").returncode == 0
    shell.write_image('phase = "final"\n')
    for one in shell.media.iterdir():
        one.unlink()
    done = shell.run("enroll", "--once")
    assert done.returncode == 0 and done.stdout.startswith(b"PASS "), done.stderr
    assert shell.run("secret", "get", "model").stdout == MODEL
    update = maker.make([Item("api-key", "static", b"field", 2, "replace")], maker.under(OEM))
    assert shell.run("offline", "apply", str(shell.put(update, "u"))).returncode == 0
    assert shell.run("secret", "get", "api-key").stdout == b"field"
    again = shell.run("offline", "apply", str(shell.put(maker.make(ITEMS, version=2), "f")))
    assert again.returncode == 77 and b"shut the MP engine" in again.stderr


def test_production_image_on_a_board_that_was_never_loaded_says_so(shell: Shell, maker: Maker) -> None:
    shell.write_image('phase = "final"\n')
    shell.put(maker.make(ITEMS))
    done = shell.run("enroll", "--once")
    assert done.returncode == 77 and b"takes no first loading" in done.stderr


def test_image_of_the_other_way_is_refused_and_the_board_stays_whole(shell: Shell, maker: Maker) -> None:
    """T-687 Mix-up: an image with a server on a board of bundles, and bundles on an image with a server."""
    shell.put(maker.make(ITEMS))
    assert shell.run("enroll", "--once").returncode == 0
    before = shell.state()
    anchors = shell.disk / "usr/lib/mpagent/anchors.toml"
    text = anchors.read_text()
    line = text.replace('mp_use = "secret"', 'tls_roots = ["-----BEGIN CERTIFICATE-----"]')
    start = line.index("[[slot]]")
    anchors.write_text(line[:start] + '[[slot]]\nname = "disk"\nkind = "local"\n')
    shell.set('server = "https://127.0.0.1:9"\n')
    done = shell.run("enroll", "--once")
    assert done.returncode == 78 and b"provisioned by bundles" in done.stderr, done.stderr
    assert shell.run("offline", "apply", "x").returncode == 78
    assert shell.state() == before
    anchors.write_text(text)
    shell.set('bundle = "/media"\n')
    assert shell.run("enroll", "--once").returncode == 0


def test_full_disk_is_told_before_the_first_byte(shell: Shell, maker: Maker) -> None:
    """T-688 Full: a file that does not fit is refused before anything is written; with room it is taken."""
    state = shell.disk / "var/lib/mpagent"
    state.mkdir(parents=True, exist_ok=True)
    with mounted(state, "size=9m"):
        big = [ITEMS[0], Item("model", "file", bytes(2_000_000)), *ITEMS[2:]]
        done = shell.run("offline", "apply", str(shell.put(maker.make(big), "big")))
        assert done.returncode == 73 and b"the files of this bundle need" in done.stderr, done.stderr
        assert list(shell.state()) == []
        done = shell.run("offline", "apply", str(shell.put(maker.make(ITEMS), "small")))
        assert done.returncode == 0, done.stderr


def test_read_only_state_shows_what_is_there_and_takes_nothing_new(shell: Shell, maker: Maker) -> None:
    state = shell.disk / "var/lib/mpagent"
    state.mkdir(parents=True, exist_ok=True)
    with mounted(state, "size=32m"):
        shell.put(maker.make(ITEMS))
        assert shell.run("enroll", "--once").returncode == 0
        remount(state, "ro")
        try:
            done = shell.run("enroll", "--once")
            assert done.returncode == 0, done.stderr
            update = maker.make([Item("api-key", "static", b"n", 2, "replace")], maker.under(OEM))
            done = shell.run("offline", "apply", str(shell.put(update, "u")))
            assert done.returncode == 73, done.stderr
        finally:
            remount(state, "rw")
        assert shell.run("secret", "get", "api-key").stdout == API_KEY


def remount(folder: Path, how: str) -> None:
    from tests.mpagent.conftest import AS_ROOT

    subprocess.run([*AS_ROOT, "mount", "-o", f"remount,{how}", folder], check=True)


def test_medium_that_takes_no_receipt_costs_no_pass(shell: Shell, maker: Maker) -> None:
    """T-689 Full medium: the receipt stays on the board, the PASS says so, and the next start lays it there."""
    shell.receipts.rmdir()
    shell.put(maker.make(ITEMS))
    done = shell.run("enroll", "--once")
    assert done.returncode == 0 and b"receipt not exported: " in done.stdout
    shell.receipts.mkdir()
    with mounted(shell.receipts, "size=4k,nr_inodes=1"):
        done = shell.run("enroll", "--once")
        assert done.returncode == 0 and b"receipt not exported: " in done.stdout, done.stdout
    done = shell.run("enroll", "--once")
    assert done.returncode == 0 and b"not exported" not in done.stdout
    (receipt,) = shell.receipts.iterdir()
    assert shell.run("offline", "receipts").stdout == receipt.read_bytes()


def test_medium_that_cannot_be_wiped_costs_no_pass(shell: Shell, maker: Maker) -> None:
    shell.write_image("[offline]\nwipe = true\n\n")
    raw = maker.make(ITEMS)
    with mounted(shell.media, "size=16m"):
        path = shell.put(raw)
        remount(shell.media, "ro")
        done = shell.run("enroll", "--once")
        assert done.returncode == 0 and b"cannot be wiped: Read-only file system" in done.stderr
        assert path.read_bytes() == raw
        remount(shell.media, "rw")
        assert shell.run("enroll", "--once").returncode == 0
        assert not path.exists()


def test_two_boards_at_one_time_and_one_board_twice(shell: Shell, maker: Maker) -> None:
    """T-691 Two at once: a second run finds the state folder held; whichever it was, one generation stands."""
    path = shell.put(maker.make([ITEMS[0], Item("model", "file", bytes(20_000_000)), *ITEMS[2:]]), "b")
    runs = [
        subprocess.Popen(shell.command("offline", "apply", str(path)), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    codes = sorted(one.wait(timeout=60) for one in runs)
    errors = b"".join(one.communicate()[1] for one in runs)
    assert codes[0] == 0 and set(codes) <= {0, 75}, errors
    assert [name for name in shell.state() if name.startswith("vault/")] == ["vault/gen-000001"]
    assert shell.run("enroll", "--once").returncode == 0


def test_stopped_in_the_middle_of_a_large_file_leaves_nothing_behind(shell: Shell, maker: Maker) -> None:
    path = shell.put(maker.make([ITEMS[0], Item("model", "file", bytes(60_000_000)), *ITEMS[2:]]), "b")
    process = subprocess.Popen(shell.command("offline", "apply", str(path)), stderr=subprocess.PIPE)
    files = shell.disk / "var/lib/mpagent/files"
    wait_for(lambda: files.is_dir() and any(files.iterdir()))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    done = shell.run("offline", "apply", str(path))
    assert done.returncode == 0, done.stderr
    assert b"% of 57 MiB" in done.stderr
    assert sorted(shell.state()) == [
        "files/model-000001",
        "receipts/" + next(shell.receipts.iterdir()).name,
        "record-a",
        "shelf/sealed-key-sign",
        "shelf/sealed-keyring-dek",
        "vault/gen-000001",
    ]


def test_luks_slot_made_on_the_board_is_ordered_for_the_finisher(shell: Shell, maker: Maker) -> None:
    """What comes after a PASS is the same as over a line: the order names the bundle in the Grant's place."""
    shell.write_image('[finish]\nluks = "/dev/mmcblk0p4"\nluks_slot = "disk"\nstate = "/dev/mmcblk0p3"\n\n')
    shell.put(maker.make(ITEMS))
    boot = shell.disk / "proc/sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    assert shell.run("enroll", "--once").returncode == 0
    assert "order" in shell.state()
    assert b"luks-format" in shell.run("finish", "show").stdout


def test_completion_knows_the_command(shell: Shell) -> None:
    script = shell.run("completion", "bash").stdout.decode()
    for word in ("offline", "apply", "--dry-run", "--job-secret-file", "--job-secret-prompt", "receipts"):
        assert word in script


def test_secret_of_a_torn_file_is_not_given_out(shell: Shell, maker: Maker) -> None:
    """T-692 Worn flash: a file that lost its end, or a bit in its middle, is refused before its first byte is given."""
    shell.put(maker.make(ITEMS))
    assert shell.run("enroll", "--once").returncode == 0
    path = shell.disk / "var/lib/mpagent/files/model-000001"
    whole = path.read_bytes()
    for spoilt in (whole[:-1], whole[:-100_000], whole + b"\0", whole[:70_000] + b"\xff" + whole[70_001:], b""):
        path.write_bytes(spoilt)
        done = shell.run("secret", "get", "model")
        assert (done.returncode, done.stdout) == (65, b""), done.stderr
    output = Path("/dev/shm") / f"mpagent-test-{os.getpid()}"
    assert shell.run("secret", "get", "model", "--output", str(output)).returncode == 65 and not output.exists()
    path.unlink()
    assert shell.run("secret", "get", "model").returncode == 65
    assert shell.run("enroll", "--once").returncode == 0  # the bundle is still there, and brings it again
    assert shell.run("secret", "get", "model", "--output", str(output)).returncode == 0
    assert output.read_bytes() == MODEL
    output.unlink()


def test_torn_file_without_its_bundle_is_no_pass(shell: Shell, maker: Maker) -> None:
    shell.put(maker.make(ITEMS))
    assert shell.run("enroll", "--once").returncode == 0
    (shell.media / "a.mpbundle").unlink()
    (shell.disk / "var/lib/mpagent/files/model-000001").unlink()
    done = shell.run("enroll", "--once")
    assert done.returncode == 69 and b"'model' is not held whole" in done.stderr
    assert len(SLOTS) == 5


def ask_doctor(shell: Shell, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = shell.run("doctor", "--json", *words)
    return done.returncode, {one["ability"]: one for one in json.loads(done.stdout)}


def test_doctor_looks_at_place_receipts_and_job_secret(shell: Shell, maker: Maker) -> None:
    code, found = ask_doctor(shell)
    assert code == 69 and found["bundle place"]["state"] == "missing" and found["receipts"]["state"] == "ok"
    assert found["job secret"]["state"] == "note" and "server" not in found
    assert found["attest sim"]["cause"].startswith("the class key can be read, mpk-")
    assert found["life cycle"]["cause"] == "closed, shown in this boot by secure-world"
    shell.put(b"noise", "noise.mpbundle")
    code, found = ask_doctor(shell)
    assert code == 69 and "is no bundle" in found["bundle place"]["cause"]
    shell.put(maker.make(ITEMS, job_secret=JOB_SECRET))
    code, found = ask_doctor(shell)
    assert code == 0 and "mp version 1" in found["bundle place"]["cause"]
    shell.set('bundle = "/media"\nreceipts = "/nowhere"\njob_secret_file = "/job-secret"\n')
    (shell.disk / "job-secret").write_text(SECRET_TEXT[:-1])
    code, found = ask_doctor(shell)
    assert code == 77 and found["job secret"]["state"] == "broken" and found["receipts"]["state"] == "note"
    (shell.disk / "job-secret").write_text(SECRET_TEXT)
    code, found = ask_doctor(shell)
    assert code == 0 and found["job secret"]["state"] == "ok"
    assert shell.run("enroll", "--once").returncode == 0
    shell.set("")
    code, found = ask_doctor(shell)
    assert code == 0 and found["bundle place"]["state"] == found["receipts"]["state"] == "note"


def test_doctor_of_an_open_board_says_to_close_it(tmp_path: Path, maker: Maker) -> None:
    shell = Shell(tmp_path / "open", maker, plan=BoardPlan(closed=False))
    shell.put(maker.make(ITEMS))
    code, found = ask_doctor(shell)
    assert code == 77 and found["life cycle"]["state"] == "broken" and "close the part" in found["life cycle"]["next"]
