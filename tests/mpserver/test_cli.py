"""The operator's command line: what it refuses, what it says, and what is left behind."""

import hashlib
import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpagent.anchors import read_anchors
from mpserver.cli import make_parser
from mpserver.mpuse import name_key
from mpsim import board, fuses
from tests.mpserver.desk import Desk

PRODUCT = """
name = "gateway"
attesters = ["mp"]
grades = ["L"]
mp_keys = ["MP"]

[[slot]]
name = "disk"
kind = "local"
length = 64

[[slot]]
name = "token"
kind = "random"
"""


@pytest.fixture
def key() -> dict[str, Any]:
    """What `mpsim mp-key --json` prints."""
    return dict(board.mp_key_record("imx8mm", fuses.srk_hash_of("lab")))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: dict[str, Any]) -> Desk:
    """A lab server, set up."""
    made = Desk(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    made.write("product.toml", PRODUCT.replace("MP", key["mp_key_id"]))
    made.write("key.json", json.dumps(key))
    return made


def test_production_says_what_it_lacks_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = Desk(tmp_path, capsys).run("init", "--realm", "production")
    assert code == 78 and "two people with passkeys" in err
    assert list(tmp_path.iterdir()) == []


def test_init_leaves_a_folder_with_something_else_in_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped --dir must not close somebody's home to everybody else."""
    desk = Desk(tmp_path, capsys)
    desk.state.mkdir(mode=0o755)
    (desk.state / "letter").touch()
    code, _, err = desk.run("init", "--realm", "lab")
    assert code == 78 and "holds other files (letter)" in err
    assert desk.state.stat().st_mode & 0o777 == 0o755 and [one.name for one in desk.state.iterdir()] == ["letter"]


def test_a_host_that_is_not_ours_is_named_as_such(desk: Desk) -> None:
    code, _, err = desk.run("run", "--host", "192.0.2.1", "--port", "0")
    assert code == 69 and "name an address of this machine, --host" in err


def test_a_second_init_keeps_the_first_issuers_keys(desk: Desk) -> None:
    before = {path: path.read_bytes() for path in desk.state.rglob("*") if path.is_file()}
    code, _, err = desk.run("init", "--realm", "lab")
    assert code == 78 and "set up already" in err
    assert {path: path.read_bytes() for path in desk.state.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frob"],
        ["init"],
        ["init", "--realm", "home"],
        ["job", "create", "j"],
        ["job", "create", "j", "--product", "p", "--quota", "0"],
        ["job", "create", "../j", "--product", "gateway", "--quota", "1"],
        ["run", "--port", "70000"],
        ["product", "add", "/nowhere/at.all"],
        ["inspect", "/nowhere/at.all"],
        ["doctor", "--frob"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_meant_ends_with_64_and_one_line(desk: Desk, words: list[str]) -> None:
    code, out, err = desk.run(*words)
    assert (code, out) == (64, "")
    assert err.startswith("mpserver: ") and err.count("\n") == 1


@pytest.mark.parametrize("words", [["doctor"], ["run"], ["job", "list"], ["ledger", "verify"], ["product", "show"]])
def test_without_init_every_command_names_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, _, err = Desk(tmp_path, capsys).run(*words)
    assert code == 78 and "mpserver init" in err
    assert list(tmp_path.iterdir()) == []


def test_from_keys_to_an_open_job_and_to_its_end(desk: Desk, key: dict[str, Any]) -> None:
    assert desk.read("key", "import", str(desk.folder / "key.json"))["new"] is True
    assert desk.read("key", "import", str(desk.folder / "key.json"))["new"] is False
    assert desk.read("product", "add", str(desk.folder / "product.toml"))["version"] == 1
    assert desk.read("product", "add", str(desk.folder / "product.toml"))["version"] == 2
    assert desk.read("job", "create", "j1", "--product", "gateway", "--quota", "4")["state"] == "draft"
    assert desk.read("job", "approve", "j1")["state"] == "open"
    assert desk.run("job", "approve", "j1")[0] == 77
    assert desk.run("job", "create", "j1", "--product", "gateway", "--quota", "9")[0] == 77
    (job,) = desk.read("job", "list")
    assert job == {"name": "j1", "product": "gateway", "state": "open", "quota": 4, "granted": 0, "provisioned": 0}
    (path,) = (desk.state / "keys" / "jobs").iterdir()
    assert desk.read("job", "end", "j1")["state"] == "ended"
    assert not path.exists()
    assert desk.read("job", "end", "j1")["state"] == "ended"
    assert [entry["kind"] for entry in desk.read("ledger", "show")] == ["key", "product", "product", *["job"] * 3]
    assert desk.read("ledger", "verify")["entries"] == 6
    (listed,) = desk.read("key", "list")
    assert listed["key_id"] == key["mp_key_id"] and key["public_key"] not in json.dumps(listed)


def test_a_job_without_its_product_or_its_draft_is_refused(desk: Desk) -> None:
    assert desk.run("job", "create", "j1", "--product", "gateway", "--quota", "4")[0] == 77
    for verb in ("approve", "end", "show"):
        code, _, err = desk.run("job", verb, "j1")
        assert code == 77 and "no job j1" in err
    assert desk.read("job", "list") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"public_key": "00"}, "64 bytes"),
        ({"public_key": "zz"}, "not hexadecimal"),
        ({"mp_key_id": "00" * 32}, "SHA-256"),
        ({"origin": "anywhere"}, "origin"),
        ({"mp_use": "both"}, "mp_use"),
        ({"use": "both"}, "use"),
        ({"part": 7}, "part"),
        ({"part": "\ud800"}, "part"),
        ({"kind": "tpm", "ek_name": "000b"}, "34 bytes"),
    ],
)
def test_a_key_record_with_a_wrong_field_is_named(
    desk: Desk, key: dict[str, Any], change: dict[str, str], said: str
) -> None:
    code, _, err = desk.run("key", "import", desk.write("wrong.json", json.dumps({**key, **change})))
    assert code == 64 and said in err
    assert desk.read("key", "list") == []


def test_a_key_known_as_another_is_not_replaced(desk: Desk, key: dict[str, Any]) -> None:
    """A simulated key must not become silicon by importing it again."""
    desk.read("key", "import", str(desk.folder / "key.json"))
    code, _, err = desk.run("key", "import", desk.write("again.json", json.dumps({**key, "origin": "silicon"})))
    assert code == 77 and "origin simulated" in err
    assert desk.read("key", "list")[0]["origin"] == "simulated"


def test_one_class_key_is_not_both_signed_with_and_secret(desk: Desk, key: dict[str, Any]) -> None:
    """An MP signature gives the public key away (design section 4)."""
    desk.read("product", "add", str(desk.folder / "product.toml"))
    name = name_key(bytes.fromhex(key["public_key"])).hex()
    words = ("mp", "vault", "import", str(desk.folder / "key.json"), "--confirm", name)
    code, _, err = desk.run(*words)  # a product pins it, though nobody registered it yet
    assert code == 77 and "product gateway pins this key to sign" in err
    desk.read("key", "import", str(desk.folder / "key.json"))
    code, _, err = desk.run(*words)
    assert code == 77 and "registered to sign" in err
    assert desk.read("mp", "vault", "list") == []


@pytest.mark.parametrize(
    "text",
    [
        'name = "x"',
        "name = ",
        PRODUCT + "\nfrob = 1\n",
        PRODUCT.replace('"gateway"', '"gateway"\nrealm = "production"'),
    ],
)
def test_a_product_file_that_cannot_be_followed_leaves_no_product(desk: Desk, text: str) -> None:
    assert desk.run("product", "add", desk.write("wrong.toml", text))[0] == 78
    assert desk.read("product", "show") == []


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (PRODUCT.replace("grades", "grade"), 4, "unknown key 'grade'"),
        (PRODUCT.replace('["L"]', '"L"'), 4, "a list"),
        (PRODUCT.replace('"random"', '"randm"'), 14, "kind = 'randm'"),
        (PRODUCT.replace("length = 64", "length = 6"), 10, "length"),
        (PRODUCT.replace("length", "lenght"), 10, "unknown key 'lenght'"),
        (PRODUCT.replace('"token"', '"disk"'), 13, "one name"),
        (PRODUCT.replace('name = "token"\n', ""), 12, "name is missing"),
        (PRODUCT.replace('"random"', '"static"'), 12, "value_hex"),
        (PRODUCT.replace("64", "= 64"), 10, "not TOML"),
        (PRODUCT + "x = [", 15, "not TOML"),
    ],
)
def test_a_typo_in_a_product_file_is_named_with_file_and_line(desk: Desk, text: str, line: int, said: str) -> None:
    path = desk.write("wrong.toml", text.replace("MP", "00" * 32))
    code, _, err = desk.run("product", "add", path)
    assert code == 78 and err.startswith(f"mpserver: {path}:{line}: ") and said in err, err


@pytest.mark.parametrize("quota", ["0", "-1", "x", "2147483648", "9" * 23, "9" * 5_000])
def test_a_quota_no_ledger_could_hold_is_refused(desk: Desk, quota: str) -> None:
    desk.read("product", "add", str(desk.folder / "product.toml"))
    code, _, err = desk.run("job", "create", "lot", "--product", "gateway", f"--quota={quota}")
    assert code == 64 and "a quota is 1 to 2147483647 boards" in err
    assert desk.read("job", "list") == []


def test_a_key_file_of_brackets_alone_is_no_traceback(desk: Desk) -> None:
    code, _, err = desk.run("key", "import", desk.write("deep.json", "[" * 100_000))
    assert code == 64 and "not JSON" in err


def test_the_anchors_it_prints_are_those_a_device_reads(desk: Desk, key: dict[str, Any]) -> None:
    desk.read("product", "add", str(desk.folder / "product.toml"))
    options = ("--sim-chip", "/chip", "--swname", "provisioning", "--swversion", "1.2")
    code, out, _ = desk.run("product", "anchors", "gateway", *options)
    assert code == 0
    image, choice = read_anchors(Path(desk.write("anchors.toml", out)))

    assert (image.realm, image.product, image.swversion) == ("lab", "gateway", "1.2")
    assert [len(root) for root in image.roots] == [65, 65]
    assert image.tls_roots[0] == (desk.state / "keys" / "root.crt").read_text()
    assert image.mp_key_ids == (bytes.fromhex(key["mp_key_id"]),) and image.allow_open is False
    assert [(slot.name, slot.kind, slot.length) for slot in image.slots] == [
        ("disk", "local", 64),
        ("token", "random", 32),
    ]
    assert (choice.attest, choice.seal, choice.keys, choice.soc) == (("sim",), ("sim",), ("sealed",), ("sim",))


def test_an_image_does_not_pin_the_key_that_open_parts_sign_with(desk: Desk, key: dict[str, Any]) -> None:
    """A device takes a signature by a pinned key as proof that its part is closed (promise P6)."""
    test_key = board.test_key_record("imx8mm", fuses.srk_hash_of("lab"))
    desk.read("key", "import", str(desk.folder / "key.json"))
    desk.read("key", "import", desk.write("test-key.json", json.dumps(test_key)))
    both = PRODUCT.replace('"MP"', f'"{key["mp_key_id"]}", "{test_key["mp_key_id"]}"')
    assert desk.read("product", "add", desk.write("both.toml", both))["unregistered_keys"] == []

    text = desk.run("product", "anchors", "gateway")[1]

    image, _ = read_anchors(Path(desk.write("anchors.toml", text)))
    assert image.mp_key_ids == (bytes.fromhex(key["mp_key_id"]),)
    assert f"# left out, because open parts sign with it: test key {test_key['mp_key_id']}\n" in text
    assert sorted(one["use"] for one in desk.read("key", "list")) == ["class", "test"]


def test_a_class_key_nobody_registered_is_named_with_the_next_step(desk: Desk, key: dict[str, Any]) -> None:
    code, out, _ = desk.run("product", "add", str(desk.folder / "product.toml"))
    assert code == 0 and f"key {key['mp_key_id']} is not registered yet; next: mpserver key import" in out


def test_doctor_names_what_a_person_has_to_do(desk: Desk) -> None:
    lines = {line["check"]: line for line in desk.read("doctor")}
    assert lines["standby-root"]["ok"] is None and "off line" in lines["standby-root"]["next"]
    (desk.state / "take-offline" / "standby-root.pem").unlink()
    desk.read("product", "add", str(desk.folder / "product.toml"))
    desk.read("job", "create", "j1", "--product", "gateway", "--quota", "4")
    desk.read("job", "approve", "j1")
    lines = {line["check"]: line for line in desk.read("doctor")}
    assert lines["standby-root"]["ok"] and lines["jobs"]["ok"]

    (path,) = (desk.state / "keys" / "jobs").iterdir()
    path.unlink()
    code, out, _ = desk.run("doctor")
    assert code == 77 and "FAIL job-key: job j1 has lost its key" in out


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE jobs SET quota = 400", "job j1: product or quota (400)"),
        ("UPDATE jobs SET quota = 4.5", "job j1: product or quota (4.5)"),
        ("UPDATE jobs SET product = 'other'", "job j1: product or quota"),
        ("UPDATE jobs SET state = 'draft'", "job j1 is draft"),
        ("UPDATE jobs SET state = 'ended'", "job j1 is ended"),
        ("UPDATE attester_keys SET origin = 'silicon'", "is not registered as the ledger says"),
        ("UPDATE attester_keys SET use = 'test'", "is not registered as the ledger says"),
        ("UPDATE products SET digest = zeroblob(32)", "product gateway version 1 is not the one"),
        ("UPDATE jobs SET state = 'exhausted'", ""),
    ],
)
def test_ledger_verify_holds_what_the_oem_decided_against_the_tree(desk: Desk, statement: str, said: str) -> None:
    """T-235 Over-production: a quota raised in the file with an editor has no entry."""
    for words in (["product", "add", "product.toml"], ["key", "import", "key.json"]):
        desk.read(*words[:2], str(desk.folder / words[2]))
    desk.read("job", "create", "j1", "--product", "gateway", "--quota", "4")
    desk.read("job", "approve", "j1")
    with closing(sqlite3.connect(desk.state / "ledger.db")) as ledger:
        ledger.execute(statement)
        ledger.commit()

    code, _, err = desk.run("ledger", "verify")

    assert code == (65 if said else 0) and said in err, err


def test_a_lost_last_head_says_what_to_restore(desk: Desk) -> None:
    (desk.state / "keys/last-head").unlink()
    code, _, err = desk.run("ledger", "verify")
    assert code == 65 and "last-head is gone: restore it" in err


def test_an_unknown_board_is_no_traceback(desk: Desk) -> None:
    code, _, err = desk.run("device", "show", "01ff")
    assert code == 77 and "0 boards begin with 01ff" in err
    assert desk.read("device", "list") == []


def test_inspect_shows_a_certificate_and_refuses_garbage(desk: Desk) -> None:
    code, out, _ = desk.run("inspect", str(desk.state / "keys" / "grant.cose"))
    assert code == 0 and "grant" in out
    code, out, err = desk.run("inspect", str(desk.folder / "product.toml"))
    assert (code, out) == (76, "") and err.startswith(f"mpserver: {desk.folder / 'product.toml'} holds no message")


def test_no_private_key_and_no_wrapped_value_is_ever_printed(desk: Desk) -> None:
    desk.read("product", "add", str(desk.folder / "product.toml"))
    shown = "".join(
        "".join(desk.run(*words)[1:]) for words in (["doctor"], ["product", "anchors", "gateway"], ["ledger", "show"])
    )
    secret = (desk.state / "keys" / "symmetric.key").read_text()
    assert secret not in shown and "PRIVATE" not in shown
    assert hashlib.sha256(secret.encode()).hexdigest() not in shown


def test_the_completion_knows_every_command(desk: Desk) -> None:
    code, out, _ = desk.run("completion", "bash")
    assert code == 0
    for path in ('"job create"', '"ledger verify"', '"product anchors"', '"device show"'):
        assert path in out
    assert "--quota" in out and "--realm" in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("job cr", "create"),
        ("--dir oem job cr", "create"),
        ("--dir job job cr", "create"),
        ("job create lot --q", "--quota"),
        ("run --port 80 --h", "--help --host"),
        ("init --realm lab --n", "--name"),
        ("--dir ", ""),
        ("product add ", ""),
        ("product ", "--help add show image anchors"),
    ],
)
def test_the_completion_offers_what_may_follow(desk: Desk, typed: str, offered: str) -> None:
    """Nothing offered leaves the shell's own completion: files."""
    words = ["mpserver", *typed.split(" ")]
    script = desk.run("completion", "bash")[1] + '\nCOMP_CWORD=$(($# - 1)) COMP_WORDS=("$@")\n_mpserver\n'
    script += 'echo "${COMPREPLY[*]}"'
    said = subprocess.run(["bash", "-uc", script, "-", *words], capture_output=True, text=True, check=True, timeout=20)
    assert (said.stdout.strip(), said.stderr) == (offered, "")


def test_every_command_has_words_about_itself() -> None:
    text = make_parser().format_help()
    for name in ("init", "run", "product", "key", "job", "device", "ledger", "doctor", "inspect", "completion"):
        assert f"    {name}" in text
