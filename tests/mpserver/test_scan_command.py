"""mpserver scan-image as a release engineer and a CI job type it: exit codes, JSON, and what is never printed."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mpserver.scan import filters
from tests.mpserver.consoles import BOARD_A
from tests.mpserver.desk import Desk
from tests.mpserver.plants import FORMS, KEY, SOUGHT, noise, pem_of, private_key

MPK = SOUGHT.mpk_id.hex()
PRODUCT = """
name = "gateway"
attesters = ["mp"]
grades = ["S"]
mp_use = "secret"
mpk = "{key}"

[[slot]]
name = "disk"
kind = "local"
"""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    made.write("clean", noise(50_000))
    made.write("leak", noise(9_000) + FORMS["hex"] + noise(9_000))
    made.write("blind", b"LUKS\xba\xbe" + noise(9_000))
    made.write("key", KEY)
    return made


def found(value: Any) -> list[tuple[str, str]]:
    return [(one["kind"], one["severity"]) for one in value["findings"]]


def test_each_outcome_has_its_exit_code(desk: Desk) -> None:
    """T-637 Silence: CI takes 0 for clean, so nothing else may end with 0."""
    clean, leak, blind, key = (str(desk.folder / one) for one in ("clean", "leak", "blind", "key"))
    assert desk.read("scan-image", clean, "--key-file", key)["verdict"] == "clean"
    value = desk.read("scan-image", leak, clean, "--key-file", key, code=77)
    assert (value["verdict"], found(value)) == ("findings", [("mp-public-key", "leak")])
    value = desk.read("scan-image", blind, "--key-file", key, code=65)
    assert (value["verdict"], found(value)) == ("not-everywhere", [("not-looked-into", "unseen")])
    assert desk.read("scan-image", blind, leak, "--key-file", key, code=77)["verdict"] == "findings"
    for words in ((clean,), ("nope", "--key-file", key), (str(desk.folder), "--key-file", key), ("--key-file", key)):
        assert desk.run("scan-image", *words)[0] == 64, words
    assert desk.run("scan-image", clean, "--key-file", clean)[0] == 65
    assert desk.run("scan-image", clean, "--key-file", key, "--time-limit", "0")[0] == 64


def test_a_finding_names_place_kind_and_what_to_do(desk: Desk) -> None:
    (one,) = desk.read("scan-image", str(desk.folder / "leak"), "--key-file", str(desk.folder / "key"), code=77)[
        "findings"
    ]
    assert set(one) == {"image", "path", "offset", "kind", "form", "severity", "said", "key", "advice"}
    assert (one["path"], one["offset"], one["form"]) == ("leak", 9_000, "hexadecimal") and one["advice"]


def test_the_key_is_never_in_what_a_scan_says(desk: Desk) -> None:
    """T-638 Loud guard: the scanner itself puts the key into CI's log."""
    log = desk.write("log", BOARD_A)
    said = []
    for image in (log, str(desk.folder / "leak")):
        for more in ((), ("--json",)):
            said += desk.run("scan-image", image, "--key-file", str(desk.folder / "key"), *more)[1:]
    text = "".join(said).lower()
    assert "mp-public-key" in text
    assert not any(KEY.hex()[at : at + 8] in text for at in range(0, 120, 2))
    assert "a_signature" not in text and "e85e34e4" not in text


@pytest.mark.parametrize("form", ["raw", "pem", "hex", "hex-colons", "log"])
def test_the_key_is_taken_in_the_forms_it_comes_in(form: str, desk: Desk) -> None:
    key = desk.write("given", BOARD_A if form == "log" else FORMS[form])
    assert desk.read("scan-image", str(desk.folder / "leak"), "--key-file", key, code=77)["keys"] == [MPK]


def test_a_filter_finds_the_key_without_telling_it(desk: Desk) -> None:
    """T-638 Loud guard: a machine that builds images must not hold the secret to look for it."""
    out = desk.folder / "key.filter"
    value = desk.read("scan-filter", "--key-file", str(desk.folder / "key"), "--out", str(out))
    assert value["mpk"] == MPK and out.stat().st_mode & 0o077 == 0
    raw = out.read_bytes()
    assert KEY[: filters.PREFIX_BYTES] in raw and KEY[: filters.PREFIX_BYTES + 1] not in raw and len(raw) < 80
    assert desk.read("scan-image", str(desk.folder / "leak"), "--filter", str(out), code=77)["keys"] == [MPK]
    assert desk.read("scan-image", str(desk.folder / "clean"), "--filter", str(out))["verdict"] == "clean"
    assert desk.run("scan-filter", "--key-file", str(desk.folder / "key"), "--out", str(out))[0] == 64
    assert desk.run("scan-image", "x", "--filter", str(desk.folder / "clean"))[0] == 64
    for cut in range(0, len(raw), 9):
        assert desk.run("scan-image", "x", "--filter", desk.write("cut", raw[:cut]))[0] == 65


def test_a_product_is_scanned_for_all_its_keys_or_not_at_all(desk: Desk) -> None:
    """T-639 Wrong key: a scan for another product's key finds nothing, and would call that clean."""
    assert desk.run("init", "--realm", "lab")[0] == 0
    desk.read("product", "add", desk.write("product.toml", PRODUCT.format(key=MPK)))
    leak, product = str(desk.folder / "leak"), ("--product", "gateway")
    assert desk.run("scan-image", leak, *product)[0] == 78
    assert desk.run("scan-image", leak, "--product", "other")[0] == 64
    other = desk.write("other", _other_key())
    code, _, err = desk.run("scan-image", leak, *product, "--key-file", other)
    assert code == 64 and "is not the MP key of product" in err
    assert desk.read("scan-image", leak, *product, "--key-file", str(desk.folder / "key"), code=77)["keys"] == [MPK]
    desk.read("mp", "vault", "import", str(desk.folder / "key"), "--confirm", MPK)
    out = desk.folder / "exported"
    assert desk.read("scan-filter", *product, "--out", str(out))["mpk"] == MPK
    assert filters.read_filter_file(out) == SOUGHT
    assert desk.read("scan-image", leak, *product, code=77)["keys"] == [MPK]
    anchors = desk.write("anchors.toml", 'realm = "lab"\n[board]\nattest = "mp"\n')
    assert desk.read("scan-image", anchors, *product)["findings"] == []
    assert found(desk.read("scan-image", anchors, "--key-file", other, code=77)) == [("lab-key", "leak")]


def _other_key() -> bytes:
    numbers = private_key().public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def test_options_of_optee_settle_what_its_binary_does_not_tell(desk: Desk) -> None:
    image, key = (
        desk.write("tee.bin", noise(900) + b"manufacturing_protection.pta\0" + noise(900)),
        str(desk.folder / "key"),
    )
    assert found(desk.read("scan-image", image, "--key-file", key, code=77)) == [("mp-optee", "review")]
    shut = desk.write("shut.mk", "CFG_NXP_CAAM=y\n")
    assert found(desk.read("scan-image", image, "--key-file", key, "--optee-conf", shut)) == []
    wide = desk.write("open.mk", "CFG_NXP_CAAM=y\nCFG_NXP_CAAM_MP_NO_ACCESS_CTRL=y\n")
    value = desk.read("scan-image", image, "--key-file", key, "--optee-conf", wide, code=77)
    assert found(value) == [("mp-optee", "open")]
    assert desk.run("scan-image", image, "--key-file", key, "--optee-conf", key)[0] == 64


def test_a_key_everybody_has_is_passed_by_name_and_reason_alone(desk: Desk) -> None:
    one, other, key = pem_of(private_key()), pem_of(private_key()), str(desk.folder / "key")
    image = desk.write("image", noise(500) + one + other + FORMS["raw"])
    first, second, third = desk.read("scan-image", image, "--key-file", key, code=77)["findings"]
    known = desk.write("known", f"# tests of a library\n{first['key']} self-test of libexample\n")
    value = desk.read("scan-image", image, "--key-file", key, "--known-keys", known, code=77)
    assert [one["key"] for one in value["findings"]] == [second["key"], third["key"]] and third["key"] is None
    assert value["known"] == [{"key": first["key"], "why": "self-test of libexample", "times": 1}]
    for bad in (first["key"], f"{first['key'][:60]} why", first["key"].upper() + " x"):
        assert desk.run("scan-image", image, "--key-file", key, "--known-keys", desk.write("bad", bad))[0] == 64
    mine = desk.write("mine", f"{sha256(KEY).hexdigest()} the MP key itself\n")
    assert found(desk.read("scan-image", str(desk.folder / "leak"), "--key-file", key, "--known-keys", mine, code=77))


def test_text_is_for_people_and_says_the_worst_first(desk: Desk) -> None:
    paths = [str(desk.folder / one) for one in ("blind", "leak", "clean")]
    code, out, err = desk.run("scan-image", *paths, "--key-file", str(desk.folder / "key"))
    lines = out.splitlines()
    assert (code, err) == (77, "")
    assert lines[0] == f"{paths[0]}: 1 not looked into"
    assert lines[1:3] == ["  unseen  blind", "          not looked into: encrypted by LUKS"]
    assert lines[3] == f"{paths[1]}: 1 must not ship" and lines[4].startswith("  leak    leak at 0x2328")
    assert f"{paths[2]}: clean" in lines
    assert lines[-1].startswith(f"looked for MP key {MPK[:16]}")


def test_an_interrupted_scan_leaves_nobody_at_work(tmp_path: Path) -> None:
    """T-636 Worker lost: the one who started it goes away."""
    with (tmp_path / "image").open("wb") as file:
        for number in range(300):
            file.write(noise(1024 * 1024, number))
    (tmp_path / "key").write_bytes(KEY)
    scan = subprocess.Popen(
        [sys.executable, "-m", "mpserver", "scan-image", tmp_path / "image", "--key-file", tmp_path / "key"],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{scan.pid}/task/{scan.pid}/children")
    while not (worker := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(scan.pid, signal.SIGINT)
    assert scan.wait(timeout=20) == 130
    assert worker and not Path(f"/proc/{worker[0]}").exists()
