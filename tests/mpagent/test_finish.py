"""After enrollment, on a real disk: encrypted, the production image on it, and nothing anybody else ordered."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.finish.notes import Notebook, Notes
from mpagent.finish.order import FILE, ORDER, ORDER_MAX_BYTES, Order
from tests.power.processes import Mpserver

from .finish_bench import DATA_MIB, IMAGE, MIB, ROOT_MIB, Bench, do, make_server, open_bench

ALL = 'luks = "{data}"\nluks_slot = "disk"\ninstaller = "raw"\ntarget = "{root}"\nstate = "{state}"\nafter = "reboot"\n'
LUKS = 'luks = "{data}"\nluks_slot = "disk"\nstate = "{state}"\n'
RAW = 'installer = "raw"\ntarget = "{root}"\nstate = "{state}"\n'
FOREIGN = b"a key of somebody else, 32 bytes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpserver]:
    made = make_server(tmp_path_factory.mktemp("oem") / "oem")
    yield made
    made.stop()


@pytest.fixture
def bench(server: Mpserver) -> Iterator[Bench]:
    """A board that is enrolled and has its order."""
    with open_bench(server) as made:
        made.set_finish(ALL)
        made.enroll()
        yield made


def untouched(bench: Bench) -> bool:
    """Neither partition was written."""
    return bench.read(2, DATA_MIB * MIB) == bytes(DATA_MIB * MIB) and not any(bench.read(3, ROOT_MIB * MIB))


def finish_refused(bench: Bench, code: int, words: str) -> None:
    """It ends so, and nothing was written anywhere."""
    done = bench.finish()
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert untouched(bench) and bench.systemctl_calls() == []


def read_order(bench: Bench) -> Order:
    raw = Disk(bench.state).read(FILE, ORDER_MAX_BYTES)
    assert raw is not None
    return ORDER.decode(raw, ORDER_MAX_BYTES)


def set_notes(bench: Bench, notes: Notes) -> None:
    Notebook(Disk(bench.state / "finish")).save(notes)


def format_foreign(bench: Bench, key: bytes) -> None:
    words = ["luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    command = ["cryptsetup", *words, "--key-file", "-", str(bench.partition(2))]
    subprocess.run(command, input=key, check=True, capture_output=True)


def test_a_board_encrypts_its_disk_installs_the_image_of_its_grant_and_reboots(bench: Bench) -> None:
    assert bench.mpagent("finish", "run", "--dry-run").stdout == "WOULD luks-format, install-image, reboot\n"
    assert untouched(bench)

    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE luks-format, install-image, reboot\n"), done.stderr
    assert bench.read(3, len(IMAGE)) == IMAGE and not any(bench.read(3, ROOT_MIB * MIB)[len(IMAGE) :])
    assert bench.opens(bench.secret("disk")) and not bench.opens(FOREIGN)
    assert bench.systemctl_calls() == ["--no-block reboot"]
    shown = bench.mpagent("finish", "show").stdout
    assert hashlib.sha256(IMAGE).hexdigest() in shown and "installed  True" in shown


def test_the_next_boot_changes_nothing_and_does_not_reboot_for_ever(bench: Bench) -> None:
    bench.finish()
    volume, image = bench.read(2, DATA_MIB * MIB), bench.read(3, ROOT_MIB * MIB)
    bench.boot()
    bench.enroll()

    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE before\n") and "look at the boot order" in done.stderr
    assert (bench.read(2, DATA_MIB * MIB), bench.read(3, ROOT_MIB * MIB)) == (volume, image)
    assert len(bench.systemctl_calls()) == 1


def test_an_image_that_asks_for_nothing_is_finished_at_once(bench: Bench) -> None:
    (bench.disk / "usr/lib/mpagent/anchors.toml").write_text(bench.server.anchors)
    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE this image asks for nothing after enrollment\n")
    assert untouched(bench)


def test_no_order_of_this_boot_is_no_order(bench: Bench) -> None:
    """T-540 Replay: the order of an earlier boot, or none at all; a thief swapped chips or images in between."""
    bench.boot()
    finish_refused(bench, 75, "enrollment has given no order in this boot")
    Disk(bench.state).remove(FILE)
    finish_refused(bench, 75, "enrollment has given no order in this boot")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one._replace(tag=bytes(32)), "was not given by this board's enrollment"),
        (lambda one: one._replace(verbs=("luks-format", "poweroff")), "was not given by this board's enrollment"),
        (lambda one: one._replace(ueid=b"\x01" * 33), "another board, Grant or vault"),
        (lambda one: one._replace(grant_digest=bytes(32)), "another board, Grant or vault"),
        (lambda one: one._replace(generation=7), "another board, Grant or vault"),
    ],
)
def test_an_order_written_by_another_than_the_vaults_owner_is_refused(
    bench: Bench, change: Callable[[Order], Order], words: str
) -> None:
    """T-540 Forgery: who can write the state partition orders root to format a disk."""
    Disk(bench.state).write(FILE, ORDER.encode(change(read_order(bench))))
    finish_refused(bench, 65, words)


def test_an_order_for_another_image_is_refused(bench: Bench) -> None:
    """T-540 Mix-up: another image on the same board would give the same order other arguments."""
    bench.set_finish(LUKS)
    finish_refused(bench, 65, "asks for something else than this image")


def test_garbage_and_links_in_the_place_of_an_order_are_refused(bench: Bench) -> None:
    """T-540 Garbage."""
    (bench.state / FILE).write_bytes(os.urandom(200))
    finish_refused(bench, 65, "is not what mpagent wrote")
    (bench.state / FILE).unlink()
    (bench.state / FILE).symlink_to(bench.folder / "elsewhere")
    finish_refused(bench, 74, "cannot read")


def test_the_disk_of_another_board_finishes_nothing(bench: Bench, server: Mpserver) -> None:
    """T-540 Clone: the state partition of a finished board under another chip."""
    with open_bench(server) as other:
        other.set_finish(ALL)
        other.enroll()
        for one in bench.state.iterdir():
            if one.name not in ("lost+found", "lock"):
                shutil.copytree(one, other.state / one.name, dirs_exist_ok=True) if one.is_dir() else shutil.copy(
                    one, other.state / one.name
                )
        shutil.copy(bench.disk / "proc/sys/kernel/random/boot_id", other.disk / "proc/sys/kernel/random/boot_id")
        finish_refused(other, 65, "belongs to another board")


def test_the_finishers_folder_is_not_taken_from_another_user(bench: Bench) -> None:
    """T-549 Link: whoever has the agent's user lays a link where root keeps its notes, or makes that folder his own."""
    trap = bench.folder / "trap"
    trap.mkdir(mode=0o700)
    (bench.state / "finish").symlink_to(trap)
    finish_refused(bench, 74, "cannot open")
    (bench.state / "finish").unlink()
    (bench.state / "finish").mkdir()
    (bench.state / "finish").chmod(0o777)
    finish_refused(bench, 65, "is not the finisher's own folder")
    assert list(trap.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('installer = "raw"\ntarget = "{state}"\nstate = "{state}"\n', "would overwrite the state partition"),
        ('installer = "raw"\ntarget = "{loop}"\nstate = "{state}"\n', "would overwrite the state partition"),
        ('luks = "{state}"\nluks_slot = "disk"\nstate = "{state}"\n', "would overwrite the state partition"),
        ('installer = "raw"\ntarget = "{root}"\nstate = "{data}"\n', "does not lie on the state partition"),
        (f'luks = "{{root}}"\nluks_slot = "disk"\n{RAW}', "would overwrite the encrypted partition"),
        ('installer = "raw"\ntarget = "/dev/null"\nstate = "{state}"\n', "is no block device"),
        ('installer = "raw"\ntarget = "/dev/mmcblk7p9"\nstate = "{state}"\n', "No such file"),
    ],
)
def test_an_image_over_the_state_partition_is_refused_before_the_first_write(
    bench: Bench, table: str, words: str
) -> None:
    """T-543 The state partition lies outside every image: by partition, by the whole disk, and by its mount."""
    bench.set_finish(table)
    bench.enroll()
    before = (bench.state / "record-a").read_bytes()
    finish_refused(bench, 77, words)
    assert (bench.state / "record-a").read_bytes() == before


def test_an_image_without_a_state_partition_of_its_own_is_refused(bench: Bench) -> None:
    """T-543 What enrollment sealed lies on the image's own file system: the mount failed."""
    kept = bench.folder / "kept"
    shutil.copytree(bench.state, kept, symlinks=True)
    do("umount", bench.state)
    try:
        shutil.copytree(kept, bench.state, dirs_exist_ok=True)
        finish_refused(bench, 77, "does not lie on the state partition")
    finally:
        do("mount", bench.partition(1), bench.state)


def test_a_target_in_use_is_refused(bench: Bench) -> None:
    """T-544 Mounted, or held by another program."""
    point = bench.folder / "point"
    point.mkdir()
    do("mkfs.ext4", "-q", bench.partition(3))
    do("mount", bench.partition(3), point)
    try:
        done = bench.finish()
        assert done.returncode == 77 and f"is in use: {point}" in done.stderr
        assert not bench.opens(bench.secret("disk"))
    finally:
        do("umount", point)
    held = os.open(bench.partition(3), os.O_RDWR | os.O_EXCL)
    try:
        bench.set_finish(RAW)
        bench.enroll()
        done = bench.finish()
        assert done.returncode == 77 and "it is in use" in done.stderr
    finally:
        os.close(held)
    assert bench.read(3, len(IMAGE)) != IMAGE and bench.systemctl_calls() == []


def test_a_target_that_is_too_small_or_read_only_is_refused(bench: Bench) -> None:
    """T-544 The first byte is not written where the last one could not be."""
    do("delpart", bench.loop, "3")
    do("addpart", bench.loop, "3", str(29 * MIB // 512), str(4 * MIB // 512))
    bench.set_finish(RAW)
    bench.enroll()
    finish_refused(bench, 77, f"has {4 * MIB} bytes and the image {len(IMAGE)}")
    do("delpart", bench.loop, "3")
    do("addpart", bench.loop, "3", str(29 * MIB // 512), str(ROOT_MIB * MIB // 512))
    do("blockdev", "--setro", bench.partition(3))
    try:
        finish_refused(bench, 77, "cannot be written")
    finally:
        do("blockdev", "--setrw", bench.partition(3))


def test_a_server_that_gives_other_bytes_never_boots_a_board(bench: Bench, server: Mpserver) -> None:
    """T-542 Another image under the right name: on the server, by a proxy, or by a fetcher that was taken over."""
    file = next((server.directory / "images").iterdir())
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"!")
    try:
        done = bench.finish()
        assert done.returncode == 76 and "not the one that the Grant names" in done.stderr
        assert bench.read(3, MIB) == bytes(MIB) and bench.systemctl_calls() == []
    finally:
        file.write_bytes(good)
    assert bench.finish().returncode == 0 and bench.read(3, len(IMAGE)) == IMAGE


@pytest.mark.parametrize("answer", ["head -c 3000000 /dev/zero", "exit 0", "printf '\\105sorry'", "printf '\\0short'"])
def test_a_fetcher_that_lies_or_breaks_installs_nothing(bench: Bench, answer: str) -> None:
    """T-542 The process with the network is believed nothing: too little, nothing, garbage, and bytes without end."""
    bench.set_finish(RAW)
    bench.enroll()
    bench.stop_fetches()
    bench.fetcher = ("/bin/sh", "-c", answer)
    bench.serve_fetches()
    done = bench.finish()
    assert done.returncode in (69, 76), done.stderr
    assert bench.read(3, MIB) == bytes(MIB) and bench.systemctl_calls() == []


def test_an_endless_fetcher_is_cut_off_at_the_end_of_the_range(bench: Bench) -> None:
    """T-542 More bytes than the manifest says do not reach the medium."""
    bench.set_finish(RAW)
    bench.enroll()
    bench.stop_fetches()
    bench.fetcher = ("/bin/sh", "-c", "printf '\\0'; yes")
    bench.serve_fetches()
    assert bench.finish().returncode == 76
    assert not any(bench.read(3, ROOT_MIB * MIB)[len(IMAGE) :])


def test_a_server_that_is_gone_is_waited_for_and_what_came_is_kept(bench: Bench) -> None:
    """T-552 Nobody fetches, then nobody answers, then the line breaks after each piece: no byte is asked for twice."""
    bench.set_finish(RAW)
    bench.enroll()
    bench.stop_fetches()
    done = bench.finish()
    assert done.returncode == 69 and "nobody fetches the image" in done.stderr

    settings = bench.disk / "etc/mpagent/mpagent.toml"
    right = settings.read_text()
    settings.write_text('server = "https://127.0.0.1:1"\n')
    bench.serve_fetches()
    done = bench.finish()
    assert done.returncode == 69 and "refuses the connection" in done.stderr
    settings.write_text(right)

    bench.stop_fetches()
    ours = f"{sys.executable} -m mpagent --root {bench.disk} finish fetch"
    bench.fetcher = ("/bin/sh", "-c", f"{ours} | head -c {3 * MIB + 1_001}")
    bench.serve_fetches()
    done = bench.finish()
    assert done.returncode == 0, done.stderr
    assert bench.read(3, len(IMAGE)) == IMAGE


def test_a_wrong_server_certificate_ends_the_download(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """T-551 The image's way is under the same roots as every message."""
    stranger = make_server(tmp_path_factory.mktemp("stranger") / "oem")
    try:
        (bench.disk / "etc/mpagent/mpagent.toml").write_text(f'server = "{stranger.address}"\n')
        done = bench.finish()
        assert done.returncode == 69 and "not under the roots of this image" in done.stderr
        assert bench.read(3, ROOT_MIB * MIB) == bytes(ROOT_MIB * MIB)
    finally:
        stranger.stop()


def test_an_image_on_an_encrypted_disk_leaves_no_key_anywhere(bench: Bench) -> None:
    """T-550 The disk key is in no argument, no environment, no file, no log, and nowhere on the medium."""
    log = bench.folder / "calls"
    watched = ["strace", "-f", "-qq", "-v", "-s", "4096", "-x", "-o", str(log), "-e", "trace=execve"]
    assert bench.finish(prefix=watched).returncode == 0
    key = bench.secret("disk")
    do("sync")
    calls = log.read_text()
    assert calls.count("luksFormat") == 1
    for shape in (key, key.hex().encode(), "".join(f"\\x{one:02x}" for one in key).encode()):
        assert shape not in bench.medium.read_bytes()
        assert shape.decode("latin-1") not in calls and shape.decode("latin-1") not in "".join(bench.said)


def test_a_volume_of_somebody_else_is_not_formatted(bench: Bench) -> None:
    """T-553 The wrong partition, or a disk moved over from another board: its data stay."""
    bench.set_finish(LUKS)
    bench.enroll()
    format_foreign(bench, FOREIGN)
    before = bench.read(2, DATA_MIB * MIB)
    done = bench.finish()
    assert done.returncode == 77 and "under a key that is not this board's" in done.stderr
    assert bench.read(2, DATA_MIB * MIB) == before


def test_a_volume_that_lost_its_header_or_its_key_is_not_formatted_over(bench: Bench) -> None:
    """T-553 Damage after the first boot: what was stored there is not replaced by an empty volume."""
    bench.set_finish(LUKS)
    bench.enroll()
    assert bench.finish().returncode == 0
    whole = bench.partition(2).read_bytes()
    bench.partition(2).write_bytes(whole[: 32 * 1024] + bytes(512 * 1024))
    done = bench.finish()
    assert done.returncode == 65 and "this board's key does not open it" in done.stderr
    bench.partition(2).write_bytes(bytes(16 * MIB))
    done = bench.finish()
    assert done.returncode == 65 and "has lost its header" in done.stderr
    assert bench.read(2, MIB) == bytes(MIB)


def test_a_volume_flashed_with_the_factorys_key_gets_this_boards(bench: Bench) -> None:
    old = bench.secret("licence")
    format_foreign(bench, old)
    bench.set_finish(f'{LUKS}old_key_slot = "licence"\n')
    bench.enroll()
    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE luks-format\n"), done.stderr
    assert bench.opens(bench.secret("disk")) and not bench.opens(old)
    bench.boot()
    bench.enroll()
    assert bench.finish().stdout == "DONE before\n"


RAUC = 'installer = "rauc"\ntarget = "/var/spool/mpagent/bundle"\n'


def test_a_verified_bundle_is_handed_to_rauc_and_removed(bench: Bench) -> None:
    bench.set_finish(RAUC)
    bench.enroll()
    bench.put_program("usr/bin/rauc", f'echo "$1" > {bench.folder}/asked; cp "$2" {bench.folder}/bundle')
    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE install-image\n"), done.stderr
    assert (bench.folder / "bundle").read_bytes() == IMAGE and (bench.folder / "asked").read_text() == "install\n"
    assert list((bench.disk / "var/spool/mpagent").iterdir()) == [] and untouched(bench)


def test_an_installer_that_fails_or_is_missing_is_tried_again(bench: Bench) -> None:
    """T-554 Its failure is no success: the bundle stays for the next run, and nothing reboots."""
    bench.set_finish(f'{RAUC}after = "reboot"\n')
    bench.enroll()
    done = bench.finish()
    assert done.returncode == 78 and "/usr/bin/rauc is not in this image" in done.stderr
    bench.put_program("usr/bin/rauc", "echo no slot for it >&2; exit 1")
    done = bench.finish()
    assert done.returncode == 74 and "rauc failed: no slot for it" in done.stderr
    assert bench.systemctl_calls() == []
    bench.put_program("usr/bin/rauc", "exit 0")
    assert bench.finish().returncode == 0 and bench.systemctl_calls() == ["--no-block reboot"]


def test_a_bundle_that_is_not_the_grants_is_never_handed_on(bench: Bench, server: Mpserver) -> None:
    """T-554 Not even to an installer that checks signatures of its own."""
    bench.set_finish(RAUC)
    bench.enroll()
    bench.put_program("usr/bin/rauc", f"touch {bench.folder}/asked")
    file = next((server.directory / "images").iterdir())
    good = file.read_bytes()
    file.write_bytes(b"!" + good[1:])
    try:
        assert bench.finish().returncode == 76
    finally:
        file.write_bytes(good)
    assert not (bench.folder / "asked").exists()


def test_a_production_image_reports_without_its_mp_engine(bench: Bench) -> None:
    """It is shut there: closed is shown by the secure world, and the board is named by its fuses."""
    assert bench.finish().returncode == 0
    bench.boot()
    anchors = bench.disk / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(f'phase = "final"\n{bench.server.anchors}')
    done = bench.mpagent("enroll", "--once", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["stage"], told["attester"]) == ("final", {"kind": "mp", "id": ""})
    receipt = bench.server.command("inspect", str(write_final(bench, told["ueid"])))
    assert "secure-world" in receipt and "final" in receipt
    assert (
        json.loads(bench.server.command("device", "show", told["ueid"], "--json"))["final_index"]
        == told["ledger_index"]
    )
    bench.server.command("ledger", "verify")
    assert bench.mpagent("finish", "run").stdout == "DONE this image asks for nothing after enrollment\n"


def write_final(bench: Bench, ueid: str) -> Path:
    """The final receipt, out of the ledger."""
    with closing(sqlite3.connect(bench.server.directory / "ledger.db")) as connection:
        row = connection.execute("SELECT receipt FROM finals WHERE ueid = ?", (bytes.fromhex(ueid),)).fetchone()
    path = bench.folder / "final"
    path.write_bytes(row[0])
    return path


@pytest.mark.parametrize("change", ["link", "owner", "mode"])
def test_a_spool_on_a_way_that_others_write_is_refused(bench: Bench, change: str) -> None:
    """T-549 Link: root would write what comes from the line into a folder that another user names."""
    bench.set_finish(RAUC)
    bench.enroll()
    spool, trap = bench.disk / "var/spool", bench.folder / "trap"
    trap.mkdir()
    if change == "link":
        spool.symlink_to(trap)
    else:
        spool.mkdir()
        os.chown(spool, 65_534, 65_534) if change == "owner" else spool.chmod(0o777)
    done = bench.finish()
    assert done.returncode == 77 and "is not a folder of root's alone" in done.stderr
    assert not [one for one in (*trap.rglob("*"), *spool.rglob("*")) if one.is_file()]


@contextmanager
def tiny_file_system(bench: Bench) -> Iterator[None]:
    point = bench.disk / "var/spool/mpagent"
    point.mkdir(parents=True)
    do("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", point)
    try:
        yield
    finally:
        do("umount", point)


def test_a_spool_without_room_says_so_before_the_first_byte(bench: Bench) -> None:
    """T-544 A full disk."""
    bench.set_finish(RAUC)
    bench.enroll()
    with tiny_file_system(bench):
        done = bench.finish()
        assert done.returncode == 73 and "has room for" in done.stderr
        assert (bench.disk / "var/spool/mpagent/bundle").stat().st_size == 0


def test_wrong_notes_cost_a_download_and_nothing_else(bench: Bench) -> None:
    """T-542 Whoever edits the notes on the state partition skips bytes; the hash is the medium's."""
    bench.set_finish(RAW)
    bench.enroll()
    (bench.state / "finish").mkdir(mode=0o700)
    set_notes(bench, Notes(hashlib.sha256(IMAGE).digest(), 9 * MIB))
    done = bench.finish()
    assert done.returncode == 76 and bench.read(3, MIB) == bytes(MIB)
    assert bench.finish().returncode == 0 and bench.read(3, len(IMAGE)) == IMAGE


def test_stale_bytes_under_the_holes_of_an_image_are_overwritten(bench: Bench) -> None:
    bench.set_finish(RAW)
    bench.enroll()
    bench.partition(3).write_bytes(b"\xa5" * (ROOT_MIB * MIB))
    assert bench.finish().returncode == 0
    assert bench.read(3, len(IMAGE)) == IMAGE
    assert set(bench.read(3, ROOT_MIB * MIB)[len(IMAGE) :]) == {0xA5}
