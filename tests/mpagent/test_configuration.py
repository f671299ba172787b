"""Typing errors in anchors.toml and mpagent.toml: file, line, and what was meant."""

import os
from pathlib import Path
from uuid import UUID

import pytest

from mpagent.anchors import read_anchors
from mpagent.errors import ConfigWrong
from mpagent.image import FinishChoice
from mpagent.settings import Settings, read_settings

ANCHORS = '''# trust of this image
realm = "lab"
product = "camera"
build_time = 1700000000
roots = ["04{point}"]
tls_roots = ["""
-----BEGIN CERTIFICATE-----
realm = not a key
abcd=
-----END CERTIFICATE-----
"""]

[board]
attest = "sim"
seal = ["tpm", "sim"]
keys = "sealed"
soc = "sim"
sim_chip = "../chip"

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "cloud"
kind = "random"
destination = "credential"
length = 48
'''.replace("{point}", "11" * 64)

POINT = "04" + "22" * 64


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_whole_anchors_are_read(tmp_path: Path) -> None:
    image, choice = read_anchors(write(tmp_path / "anchors.toml", ANCHORS))
    assert (image.realm, image.product, image.build_time, image.allow_open) == ("lab", "camera", 1_700_000_000, False)
    assert [(one.name, one.kind, one.destination, one.length) for one in image.slots] == [
        ("disk", "local", "sealed", 32),
        ("cloud", "random", "credential", 48),
    ]
    assert (choice.attest, choice.seal, choice.keys) == (("sim",), ("tpm", "sim"), ("sealed",))
    assert choice.sim_chip == Path("../chip")


def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "anchors.toml")
    with pytest.raises(ConfigWrong, match="not a regular file"):
        read_anchors(tmp_path / "anchors.toml")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigWrong, match="cannot be read: Is a directory"):
        read_anchors(tmp_path / "folder")


def test_every_part_of_a_board_is_read(tmp_path: Path) -> None:
    parts = """relay_tas = ["8aaaf200-2450-11e4-abe2-0002a5d5c51c"]
optee_node = "/dev/tee1"
kernel_key_sources = ["tee", "caam"]
counter = "tpm"

[pkcs11]
module = "/usr/lib/libckteec.so.0"
token = "mpagent"
pin_file = "/run/credentials/mpagent.service/token-pin"
serial = "0001"

[card]
pin_file = "/run/credentials/mpagent.service/card-pin"
reader = "PIV"

[pcrs]
authority = "POINT"
pcrs = [0, 7]
""".replace("POINT", POINT)
    text = ANCHORS.replace('sim_chip = "../chip"', parts)
    _, choice = read_anchors(write(tmp_path / "anchors.toml", text))
    assert choice.relay_tas == (UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51c"),)
    assert (choice.optee_node, choice.kernel_key_sources) == (Path("/dev/tee1"), ("tee", "caam"))
    assert choice.counter == ("tpm",)
    assert choice.token is not None and choice.token.serial == b"0001"
    assert choice.card is not None and (choice.card.reader, choice.card.chain_file) == ("PIV", None)
    assert choice.pcrs is not None and choice.pcrs.pcrs == (0, 7)
    assert (choice.pcrs.realm, choice.pcrs.product) == ("lab", "camera")
    assert choice.pcrs.approvals == Path("usr/lib/mpagent/pcrs")


DIGEST = f'boot_new_digest = "{"cd" * 32}"\n'
FINISH = f"""[finish]
luks = "/dev/mmcblk0p4"
luks_slot = "disk"
old_key_slot = "cloud"
installer = "raw"
target = "/dev/mmcblk0p2"
state = "/dev/mmcblk0p3"
after = "poweroff"
boot_old = "/dev/mmcblk0p5"
boot_new = "/dev/mmcblk0p6"
boot_new_bytes = 2000000
{DIGEST}"""


def test_whole_finish_table_is_read(tmp_path: Path) -> None:
    text = ANCHORS.replace("[board]", f'phase = "final"\n{FINISH}[board]')
    image, _ = read_anchors(write(tmp_path / "anchors.toml", text))
    assert image.phase == "final" and image.finish is not None
    assert image.finish == FinishChoice(
        *("poweroff", "/dev/mmcblk0p4", "disk", "cloud", "raw", "/dev/mmcblk0p2", "/dev/mmcblk0p3"),
        *("/dev/mmcblk0p5", "/dev/mmcblk0p6", 2_000_000, b"\xcd" * 32),
    )
    plain, _ = read_anchors(write(tmp_path / "plain.toml", ANCHORS))
    assert (plain.phase, plain.finish) == ("sealed", None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('luks_slot = "disk"\n', "", "luks needs the key 'luks_slot' beside it"),
        ('luks = "/dev/mmcblk0p4"\n', "", "luks_slot needs the key 'luks' beside it"),
        ('target = "/dev/mmcblk0p2"\n', "", "installer needs the key 'target' beside it"),
        ('installer = "raw"\n', "", "target needs the key 'installer' beside it"),
        ('state = "/dev/mmcblk0p3"\n', "", "needs the key 'state' beside it"),
        ('luks_slot = "disk"', 'luks_slot = "disc"', "luks_slot names a slot that this image does not ask for"),
        ('old_key_slot = "cloud"', 'old_key_slot = "x"', "old_key_slot names a slot"),
        ('after = "poweroff"', 'after = "halt"', "after must be one of reboot, poweroff, stay"),
        ('installer = "raw"', 'installer = "dd"', "installer must be one of raw, rauc, swupdate"),
        ('target = "/dev/mmcblk0p2"', 'target = "mmcblk0p2"', "target must be a path from the root on"),
        ('target = "/dev/mmcblk0p2"', 'command = "dd"', "unknown key 'command'"),
        ('boot_old = "/dev/mmcblk0p5"\n', "", "boot_new needs the key 'boot_old' beside it"),
        ('boot_new = "/dev/mmcblk0p6"\n', "", "boot_old needs the key 'boot_new' beside it"),
        ("boot_new_bytes = 2000000\n", "", "boot_new needs the key 'boot_new_bytes' beside it"),
        (DIGEST, "", "boot_new_bytes needs the key 'boot_new_digest' beside it"),
        (DIGEST, DIGEST.replace("cd", "c", 1), "boot_new_digest must be"),
        ("boot_new_bytes = 2000000", "boot_new_bytes = 0", "boot_new_bytes must be"),
        ("boot_new_bytes = 2000000", "boot_new_bytes = 67108865", "boot_new_bytes must be"),
    ],
)
def test_a_finish_table_with_a_part_missing_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = ANCHORS.replace("[board]", FINISH.replace(old, new) + "[board]")
    with pytest.raises(ConfigWrong, match=words):
        read_anchors(write(tmp_path / "anchors.toml", text))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('realm = "lab"', 'relam = "lab"', 2, "unknown key 'relam'; did you mean 'realm'?"),
        ('realm = "lab"', 'realm = "labs"', 2, "realm must be one of lab, production; did you mean 'lab'?"),
        ('product = "camera"', "product = 3", 3, "product must be a printable text of 1 to 64 bytes"),
        ('product = "camera"', "", 1, "key 'product' is missing"),
        ("build_time = 1700000000", "build_time = true", 4, "build_time must be an integer"),
        ('["0411', '["0511', 5, "roots must be a list of uncompressed P-256 points"),
        ('["0411', '["zz11', 5, "roots must be a list of 65 bytes in hexadecimal digits"),
        ("-----BEGIN", "-----BEGUN", 6, "tls_roots must be a list of certificates in PEM"),
        ('seal = ["tpm", "sim"]', 'seel = "sim"', 15, "unknown key 'seel'; did you mean 'seal'?"),
        ('soc = "sim"', "", 13, "key 'soc' is missing"),
        ('["tpm", "sim"]', '"sin"', 15, "seal must be one of "),
        ('["tpm", "sim"]', '["tpm", "sin"]', 15, "seal must be a list of one of "),
        ('["tpm", "sim"]', '["tpm", "sin"]', 15, "; did you mean 'sim'?"),
        ('["tpm", "sim"]', '["sim", "sim"]', 15, "seal must be a list that names each backend once"),
        ('["tpm", "sim"]', "[]", 15, "seal must be a list of 1 to "),
        ('keys = "sealed"', 'keys = "sealed"\ntpm_tcti = "/dev/tpm0"', 17, "tpm_tcti must be"),
        ('keys = "sealed"', 'keys = "sealed"\noptee_node = "dev/tee0"', 17, "optee_node must be a path from the root"),
        ('keys = "sealed"', 'keys = "sealed"\nrelay_tas = ["8AAAF200"]', 17, "relay_tas must be a list of UUIDs"),
        (
            'keys = "sealed"',
            'keys = "sealed"\nkernel_key_sources = []',
            17,
            "kernel_key_sources must be a list of 1 to 4",
        ),
        ('keys = "sealed"', 'keys = "sealed"\ncounter = "tmp"', 17, "counter must be one of tpm; did you mean 'tpm'?"),
        ("[board]", '[card]\nreader = "PIV"\n[board]', 13, "key 'pin_file' is missing"),
        (
            "[board]",
            '[pkcs11]\nmodule = "libckteec.so"\ntoken = "a"\npin_file = "/p"\n[board]',
            14,
            "module must be a path from the root",
        ),
        ("[board]", '[pkcs11]\nmodul = "/x"\n[board]', 14, "unknown key 'modul'; did you mean 'module'?"),
        (
            "[board]",
            f"[pcrs]\nauthority = '{POINT}'\npcrs = [7, 4]\n[board]",
            15,
            "pcrs must be a list of PCR numbers, rising",
        ),
        (
            "[board]",
            f"[pcrs]\nauthority = '{POINT}'\npcrs = [16]\n[board]",
            15,
            "pcrs must be a list of an integer of 0 to 15",
        ),
        ("[board]", "[bord]", 13, "unknown key 'bord'; did you mean 'board'?"),
        ('kind = "random"', 'kind = "randon"', 26, "kind must be one of"),
        ('kind = "random"', 'kind = "pool"', 26, "kind must be one of local, random, static, certificate"),
        ("length = 48", "lenght = 48", 28, "unknown key 'lenght'; did you mean 'length'?"),
        ("length = 48", "length = 8", 28, "length must be an integer of 16 to 32768"),
        ('name = "cloud"', 'name = "disk"', 25, "slot 'disk' is wanted twice"),
        ('product = "camera"', "product = camera", 3, "not TOML"),
        ("[[slot]]", "[slot]", 24, "not TOML"),
        ('realm = "lab"', "verify = false", 2, "unknown key 'verify'"),
    ],
)
def test_typing_error_names_file_line_and_what_was_meant(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    path = write(tmp_path / "anchors.toml", ANCHORS.replace(old, new))
    with pytest.raises(ConfigWrong) as found:
        read_anchors(path)
    assert str(found.value).startswith(f"{path}:{line}: ")
    assert words in str(found.value)
    assert found.value.exit_code == 78


def test_image_without_anchors_trusts_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigWrong, match="trusts nobody"):
        read_anchors(tmp_path / "anchors.toml")


def test_settings_default_and_drop_ins_in_order(tmp_path: Path) -> None:
    path = tmp_path / "etc/mpagent.toml"
    assert read_settings(path) == Settings()
    write(path, 'server = "https://one:1/"\nlog = "error"\n')
    write(tmp_path / "etc/mpagent.toml.d/20-b.toml", 'server = "https://three:3"\n')
    write(tmp_path / "etc/mpagent.toml.d/10-a.toml", 'server = "https://two:2"\nwait_limit_s = 60\n')
    write(tmp_path / "etc/mpagent.toml.d/30.txt", "not read")
    assert read_settings(path) == Settings(server="https://three:3", log="error", wait_limit_s=60)


@pytest.mark.parametrize(
    "server",
    [
        "http://host",
        "https://",
        "https://user:password@host",
        "https://host/path",
        "https://host?x=1",
        "https://host:99999",
        "https://ho st",
        "host:443",
        "",
    ],
)
def test_server_address_holds_no_more_than_host_and_port(tmp_path: Path, server: str) -> None:
    path = write(tmp_path / "mpagent.toml", f'# server\n\nserver = "{server}"\n')
    with pytest.raises(ConfigWrong, match=r"mpagent.toml:3: server must be an address like"):
        read_settings(path)


@pytest.mark.parametrize("key", ["roots", "realm", "verify", "insecure", "product", "tls_roots", "allow_open"])
def test_settings_cannot_touch_trust(tmp_path: Path, key: str) -> None:
    """P10: what verity does not cover weakens nothing."""
    path = write(tmp_path / "mpagent.toml.d/99-evil.toml", f"{key} = false\n")
    with pytest.raises(ConfigWrong, match=f"99-evil.toml:1: unknown key '{key}'"):
        read_settings(tmp_path / "mpagent.toml")
    assert path.exists()


def test_binary_and_endless_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mpagent.toml"
    path.write_bytes(b'log = "info"\n\xff\xfe')
    with pytest.raises(ConfigWrong, match=r"mpagent.toml:2: not UTF-8"):
        read_settings(path)
    path.write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigWrong, match="longer than"):
        read_settings(path)
