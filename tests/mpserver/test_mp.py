"""mpserver mp: what is registered, only after its fingerprint; why a signature holds; whose key two boards have."""

import hashlib
import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpserver.mpuse import name_key
from mpwire import mp, p256
from mpwire.secret import Secret
from tests.mpserver.consoles import BOARD_A, BOARD_B, OTHER, P384_KEY, pubk, seco, sign_by
from tests.mpserver.desk import Desk
from tests.vectors.silicon import A_DIGEST, A_KEY, A_MESSAGE, A_SIGNATURE

KEY_ID = hashlib.sha256(A_KEY).hexdigest()
OTHER_KEY = OTHER.public_key()[1:]
OTHER_ID = hashlib.sha256(OTHER_KEY).hexdigest()
PRODUCT = """
name = "gateway"
attesters = ["mp"]
grades = ["S"]
{more}

[[slot]]
name = "disk"
kind = "local"
"""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A lab server, set up, with the log of vector A at hand."""
    made = Desk(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    made.write("a.log", BOARD_A)
    return made


def add_product(desk: Desk, more: str = "") -> None:
    desk.read("product", "add", desk.write("product.toml", PRODUCT.format(more=more)))


def entries(desk: Desk) -> list[str]:
    return [one["kind"] for one in desk.read("ledger", "show")]


def test_a_log_registers_nothing_before_its_fingerprint_is_confirmed(desk: Desk) -> None:
    """T-290 Slipped key: somebody hands over a log of his own board."""
    log = str(desk.folder / "a.log")
    shown = desk.read("mp", "import-log", log, code=77)
    assert (shown["refused"], shown["registered"]) == ("not-confirmed", False)
    assert desk.run("mp", "import-log", log, "--confirm", OTHER_ID)[0] == 77
    assert desk.run("mp", "import-log", log, "--confirm", KEY_ID[:16])[0] == 77
    (seen,) = desk.read("ledger", "show")  # that a key signed is kept, whoever's it is: it becomes no secret
    assert desk.read("key", "list") == [] and seen["subject"] == name_key(A_KEY).hex()


def test_a_confirmed_log_registers_the_key_once_as_silicon(desk: Desk) -> None:
    log = str(desk.folder / "a.log")
    spaced = ":".join(KEY_ID.upper()[at : at + 8] for at in range(0, 64, 8))
    shown = desk.read("mp", "import-log", log, "--confirm", spaced, "--part", "imx8mm")
    assert shown["registered"] and shown["new"] and shown["refused"] is None
    assert (shown["verified"], shown["mpmr"], shown["digest"], shown["curve"]) == (True, "zero", A_DIGEST, "P-256")
    assert shown["product_lines"] == [f'mp_keys = ["{KEY_ID}"]', 'mpmr = ["zero"]']
    (key,) = desk.read("key", "list")
    assert (key["key_id"], key["origin"], key["mp_use"], key["part"]) == (KEY_ID, "silicon", "sign", "imx8mm")
    again = desk.read("mp", "import-log", log)
    assert again["registered"] and not again["new"] and entries(desk) == ["key", "key"]
    assert [one["subject"] for one in desk.read("ledger", "show")] == [name_key(A_KEY).hex(), KEY_ID]
    assert desk.read("ledger", "verify")["entries"] == 2


def test_the_lines_it_prints_are_those_a_product_takes(desk: Desk) -> None:
    lines = desk.read("mp", "import-log", str(desk.folder / "a.log"), "--confirm", KEY_ID)["product_lines"]
    add_product(desk, "\n".join(lines))
    assert desk.read("mp", "import-log", str(desk.folder / "a.log"))["pinned_by"] == ["gateway"]


def test_standard_input_is_a_log_and_never_a_confirmation(desk: Desk) -> None:
    command = [sys.executable, "-m", "mpserver", "--dir", str(desk.state), "mp", "import-log", "-"]
    ended = subprocess.run(command, input=BOARD_A + f"\n{KEY_ID}\n", capture_output=True, text=True, check=False)
    assert ended.returncode == 77 and "nothing was registered" in ended.stdout
    command += ["--confirm", KEY_ID]
    assert subprocess.run(command, input=BOARD_A, capture_output=True, text=True, check=False).returncode == 0
    assert len(desk.read("key", "list")) == 1


@pytest.mark.parametrize(("typed", "code"), [(KEY_ID, 0), (OTHER_ID, 77), ("", 77), ("yes", 77)])
def test_a_person_at_a_terminal_types_the_fingerprint(desk: Desk, typed: str, code: int) -> None:
    """T-290 Slipped key: a yes is no confirmation; only the fingerprint is."""
    command = [
        sys.executable,
        "-m",
        "mpserver",
        "--dir",
        str(desk.state),
        "mp",
        "import-log",
        str(desk.folder / "a.log"),
    ]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as running:
        os.close(theirs)
        said = hear(ours, b"another source: ")
        assert KEY_ID.encode() in said  # what he compares stands above the question
        os.write(ours, typed.encode() + b"\n")
        assert running.wait(timeout=30) == code
    os.close(ours)
    assert len(desk.read("key", "list")) == (code == 0)


def hear(terminal: int, end: bytes) -> bytes:
    said, deadline = b"", time.monotonic() + 30
    while not said.endswith(end):
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, said
        said += os.read(terminal, 4_096)
    return said


def hide(desk: Desk) -> str:
    """The key of vector A as a secret; its fingerprint."""
    fingerprint = name_key(A_KEY).hex()
    assert desk.read("mp", "vault", "import", desk.write("key.hex", A_KEY.hex()), "--confirm", fingerprint)["kept"]
    return fingerprint


def test_a_log_with_a_signature_by_a_secret_key_is_refused(desk: Desk) -> None:
    """T-291 Key recovery: a bundle's key that signed once, on anybody's desk, is no secret any more."""
    fingerprint = hide(desk)

    code, out, err = desk.run("mp", "import-log", str(desk.folder / "a.log"), "--confirm", KEY_ID)

    assert code == 77 and fingerprint in err and "gives the public key away" in err
    assert A_KEY.hex() not in (out + err).lower() and KEY_ID not in out + err
    assert desk.read("key", "list") == [] and entries(desk) == ["key", "key"]
    assert desk.read("ledger", "show")[-1]["subject"] == fingerprint


def test_a_secret_key_is_neither_registered_nor_printed(desk: Desk) -> None:
    """T-292 Careless print: the public key, and its SHA-256, are secrets of the non-networked flow."""
    log = desk.write("key.log", pubk())
    asked = desk.run("mp", "import-log", log, "--mp-use", "secret", "--confirm", KEY_ID)
    assert asked[0] == 64 and f"mpserver mp vault import {log}" in asked[2]
    hide(desk)
    outputs = [asked]
    for words in (("mp", "import-log", log), ("mp", "import-log", log, "--confirm", KEY_ID, "--json")):
        outputs.append(desk.run(*words))
        assert outputs[-1][0] == 77
    outputs += [desk.run("key", "list"), desk.run("mp", "vault", "list", "--json")]
    said = "".join(out + err for _, out, err in outputs).lower()
    assert A_KEY.hex() not in said and KEY_ID not in said
    assert desk.read("key", "list") == []


def test_a_key_of_the_seco_is_shown_and_not_registered(desk: Desk) -> None:
    log = desk.write("seco.log", seco())
    key_id = hashlib.sha256(P384_KEY).hexdigest()
    shown = desk.read("mp", "import-log", log, "--confirm", key_id, code=77)
    assert (shown["refused"], shown["curve"], shown["key_id"]) == ("profile-unverified", "P-384", key_id)
    assert shown["public_key"] == P384_KEY.hex() and shown["mpmr"] == "unknown" and shown["verified"] is None
    assert desk.read("key", "list") == []


def test_a_log_without_its_key_tells_the_mpmr_and_registers_nothing(desk: Desk) -> None:
    shown = desk.read("mp", "import-log", desk.write("b.log", BOARD_B), "--confirm", KEY_ID, code=77)
    assert (shown["refused"], shown["mpmr"], shown["redacted"]) == ("no-key", "optee-constant", True)
    assert desk.read("key", "list") == []


def test_the_key_of_an_open_part_is_registered_as_a_test_key_or_not_at_all(desk: Desk) -> None:
    """T-293 Test key: open parts share it, and a device would take it for proof that its part is closed."""
    log = desk.write("open.log", "HAB Configuration: 0xf0, HAB State: 0x66\n" + BOARD_A)
    assert desk.read("mp", "import-log", log, "--confirm", KEY_ID, code=77)["refused"] == "open-part"
    assert desk.read("key", "list") == []
    assert desk.read("mp", "import-log", log, "--confirm", KEY_ID, "--use", "test")["registered"]
    assert desk.read("key", "list")[0]["use"] == "test"


def test_a_key_known_otherwise_is_not_replaced_by_a_log(desk: Desk) -> None:
    record = {"public_key": A_KEY.hex(), "origin": "simulated"}
    desk.read("key", "import", desk.write("key.json", json.dumps(record)))
    code, _, err = desk.run("mp", "import-log", str(desk.folder / "a.log"), "--confirm", KEY_ID)
    assert code == 77 and "origin simulated" in err
    assert desk.read("key", "list")[0]["origin"] == "simulated"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "no output"),
        (pubk(bytes(64)), "all zeros"),
        (pubk() + pubk(OTHER_KEY), "two different keys"),
        ("=> mfgprot pubk\nexit not allowed from main input shell.\n", "Unlock"),
    ],
)
def test_a_log_that_does_not_hold_is_one_line_and_code_65(desk: Desk, log: str, said: str) -> None:
    code, out, err = desk.run("mp", "import-log", desk.write("bad.log", log), "--confirm", KEY_ID)
    assert (code, out) == (65, "") and said in err and err.count("\n") == 1
    assert desk.read("key", "list") == []


@pytest.mark.parametrize(
    "words",
    [
        ["import-log", "/nowhere/at.all"],
        ["import-log", "a.log", "--mpmr", "zeros"],
        ["import-log", "a.log", "--mpmr", "00"],
        ["import-log", "a.log", "--part", "\n"],
        ["verify", "--key", A_KEY.hex(), "--message", "7A5D4DA3"],
        ["verify", "--key", A_KEY.hex(), "--message", "7A5", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", A_KEY.hex(), "--message", "", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", A_KEY.hex(), "--message", "00", "--signature", "3006" + "00" * 68],
        ["verify", "--key", A_KEY.hex(), "--message", "@/nowhere/at.all", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", "00" * 64, "--message", "00", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", "11" * 64, "--message", "00", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", P384_KEY.hex(), "--message", "00", "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", A_KEY.hex(), "--message", "00" * 65_537, "--signature", A_SIGNATURE.hex()],
        ["verify", "--key", "11" * 66, "--message", "00", "--signature", A_SIGNATURE.hex()],
        ["compare", "a.log"],
        ["compare", "a.log", "a.log", "--product", "gateway"],
        ["compare", "11" * 64, "a.log", "--product", "gateway"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_a_command_line_that_cannot_be_meant_is_one_line_and_code_64(desk: Desk, words: list[str]) -> None:
    code, out, err = desk.run("mp", *[str(desk.folder / one) if one.endswith(".log") else one for one in words])
    assert (code, out) == (64, "") and err.count("\n") == 1
    assert entries(desk) == []


def test_a_file_without_end_is_refused_before_it_is_read(desk: Desk) -> None:
    code, out, err = desk.run("mp", "import-log", "/dev/zero")
    assert (code, out) == (64, "") and "longer than" in err


def test_a_closed_standard_input_is_no_log(desk: Desk) -> None:
    command = f"exec {sys.executable} -m mpserver --dir {desk.state} mp import-log - <&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (64, "") and "closed" in ended.stderr


def verify(desk: Desk, *more: str, code: int = 0, **changes: str) -> Any:
    given = {"key": A_KEY.hex(), "message": A_MESSAGE.hex(), "signature": A_SIGNATURE.hex(), **changes}
    return desk.read("mp", "verify", *(f"--{name}={one}" for name, one in given.items()), *more, code=code)


def test_vector_a_verifies_and_says_with_which_mpmr(desk: Desk) -> None:
    shown = verify(desk)
    assert (shown["verified"], shown["mpmr"], shown["digest"], shown["curve"]) == (True, "zero", A_DIGEST, "P-256")
    assert verify(desk, mpmr="zero")["mpmr"] == "given"
    assert verify(desk, mpmr="00" * 32)["verified"]


def test_a_laptop_without_a_server_verifies_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, capsys)
    assert verify(desk)["verified"] and list(tmp_path.iterdir()) == []


def test_files_are_taken_as_they_are(desk: Desk) -> None:
    names = {"key": A_KEY, "message": A_MESSAGE, "signature": A_SIGNATURE}
    assert verify(desk, **{name: "@" + desk.write(name, raw) for name, raw in names.items()})["verified"]
    digits = "@" + desk.write("digits", A_MESSAGE.hex())
    assert not verify(desk, message=digits, code=65)["verified"]


def test_another_mpmr_than_the_one_given_is_named(desk: Desk) -> None:
    """T-294 Wrong reference: community.nxp.com 1503507, where "invalid" meant that OP-TEE had filled the MPMR."""
    shown = verify(desk, mpmr="optee", code=65)
    assert (shown["verified"], shown["mpmr"], shown["digest"]) == (False, "zero", A_DIGEST)
    assert "the chip hashed zero" in shown["why"]
    by_optee = OTHER.sign_digest(mp.digest(b"hello", mp.MPMR_OPTEE)).hex()
    shown = verify(desk, key=OTHER_KEY.hex(), message=b"hello".hex(), signature=by_optee)
    assert shown["verified"] and shown["mpmr"] == "optee-constant"


@pytest.mark.parametrize(
    ("message", "signature", "said"),
    [
        (b"hello", OTHER.sign(b"hello"), "without any MPMR"),
        (b"hell", OTHER.sign_digest(mp.digest(b"lleh", mp.MPMR_OPTEE)), "turned round"),
        (
            b"hello",
            OTHER.sign_digest(mp.digest(hashlib.sha256(b"hello").digest(), mp.MPMR_OPTEE)),
            "the message was hashed before",
        ),
        (b"hello\n", OTHER.sign_digest(mp.digest(b"hello", mp.MPMR_OPTEE)), "without a newline"),
        (b"hello", OTHER.sign_digest(mp.digest(b"hello\x00", mp.MPMR_OPTEE)), "with a zero byte"),
        (b"hello", bytes(64), "all zeros"),
        (b"hello", b"\x01" * 64, "give it with --mpmr"),
    ],
    ids=["software", "words turned", "hashed before", "newline", "zero byte", "zeros", "strange"],
)
def test_a_near_miss_is_explained(desk: Desk, message: bytes, signature: bytes, said: str) -> None:
    shown = verify(desk, code=65, key=OTHER_KEY.hex(), message=message.hex(), signature=signature.hex())
    assert (shown["verified"], shown["mpmr"], shown["digest"]) == (False, "unknown", None)
    assert said in shown["why"]
    assert [one["mpmr"] for one in shown["tried"]] == ["zero", "optee-constant", "optee-constant-fixed"]


def test_c_and_d_in_the_wrong_order_are_noticed(desk: Desk) -> None:
    made = A_SIGNATURE[32:] + A_SIGNATURE[:32]
    assert "change places" in verify(desk, code=65, signature=made.hex())["why"]


def test_a_signature_by_a_secret_key_is_told_to_have_burnt_it(desk: Desk) -> None:
    """T-295 Key recovery: whoever verifies a signature of a bundle's key is told what it cost."""
    fingerprint = hide(desk)
    shown = verify(desk, key=A_KEY.hex())
    assert shown["verified"] and shown["burnt"] and shown["mp_use"] == "secret" and shown["key_id"] == fingerprint
    words = [f"--key={A_KEY.hex()}", "--message=7A5D4DA3", f"--signature={A_SIGNATURE.hex()}"]
    code, out, _ = desk.run("mp", "verify", *words)
    assert code == 0 and "THIS KEY IS BURNT" in out and "gives the public key away" in out
    assert A_KEY.hex() not in out.lower() and KEY_ID not in out


def test_an_id_nobody_registered_is_named(desk: Desk) -> None:
    code, _, err = desk.run("mp", "verify", f"--key={KEY_ID}", "--message=00", f"--signature={A_SIGNATURE.hex()}")
    assert code == 77 and "mpserver key list" in err


def test_two_boards_with_one_key_are_a_class_and_that_is_recorded(desk: Desk) -> None:
    add_product(desk)
    second = desk.write("second.log", pubk())
    shown = desk.read("mp", "compare", str(desk.folder / "a.log"), second, "--product", "gateway")
    assert (shown["verdict"], shown["one"], shown["other"]) == ("class", KEY_ID, KEY_ID)
    shown = desk.read("mp", "compare", second, OTHER_KEY.hex(), "--product", "gateway")
    assert (shown["verdict"], shown["other"], shown["earlier"]) == ("device", OTHER_ID, ["class"])
    answers = desk.read("mp", "answers")
    assert [(one["product"], one["verdict"]) for one in answers] == [("gateway", "class"), ("gateway", "device")]
    assert entries(desk) == ["product", "key", "key"] and desk.read("ledger", "verify")["entries"] == 3


def test_a_comparison_changed_in_the_file_is_found(desk: Desk) -> None:
    """T-296 Insider: whether a key is per class decides what a product pins."""
    add_product(desk)
    desk.read("mp", "compare", str(desk.folder / "a.log"), OTHER_ID, "--product", "gateway")
    with closing(sqlite3.connect(desk.state / "ledger.db")) as ledger:
        ledger.execute("UPDATE mp_comparisons SET verdict = 'class'")
        ledger.commit()
    code, _, err = desk.run("ledger", "verify")
    assert code == 65 and "comparison of MP keys" in err


def test_nothing_is_compared_for_an_unknown_product_or_with_an_open_part(desk: Desk) -> None:
    opened = desk.write("open.log", "HAB Configuration: 0xf0\n" + BOARD_A)
    log = str(desk.folder / "a.log")
    assert desk.run("mp", "compare", log, OTHER_ID, "--product", "gateway")[0] == 77
    add_product(desk)
    assert desk.run("mp", "compare", opened, log, "--product", "gateway")[0] == 77
    assert desk.run("mp", "compare", log, desk.write("b.log", BOARD_B), "--product", "gateway")[0] == 65
    assert desk.read("mp", "answers") == []


def test_the_script_for_the_shell_knows_the_new_commands(desk: Desk) -> None:
    script = desk.run("completion", "bash")[1]
    assert all(word in script for word in ("import-log", "verify", "compare", "answers", "--confirm", "--mpmr"))


def test_an_attestation_key_of_op_tee_is_registered_from_a_file(desk: Desk) -> None:
    from tests.vectors.rsa import OPTEE

    record = {"kind": "optee", "public_key": OPTEE.public.hex(), "origin": "silicon", "part": "imx93"}
    key_id = hashlib.sha256(OPTEE.public).hexdigest()
    assert desk.read("key", "import", desk.write("key.json", json.dumps(record)))["key_id"] == key_id
    assert desk.read("key", "list")[0]["kind"] == "optee" and desk.read("ledger", "verify")["entries"] == 1
    for wrong in ("", "00", p256.write_spki(OTHER.public_key()).hex(), OPTEE.public.hex() + "00"):
        code, _, err = desk.run("key", "import", desk.write("w.json", json.dumps({**record, "public_key": wrong})))
        assert code == 64 and "attestation key" in err
    assert len(desk.read("key", "list")) == 1


def test_a_key_from_a_log_verifies_what_the_same_chip_signs_later(desk: Desk) -> None:
    log = pubk(OTHER_KEY) + sign_by(OTHER, b"one", mp.MPMR_OPTEE)
    desk.read("mp", "import-log", desk.write("o.log", log), "--confirm", OTHER_ID)
    key = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x07"))
    signature = key.sign_digest(mp.digest(b"two", mp.MPMR_OPTEE)).hex()
    assert verify(desk, key=OTHER_ID, message=b"two".hex(), signature=signature)["mpmr"] == "optee-constant"


def make_records(count: int) -> list[dict[str, str]]:
    """Keys of a line of boards, as the station that made them hands them over."""
    points = [p256.SoftKey.generate().public_key()[1:] for _ in range(count)]
    return [{"public_key": point.hex(), "origin": "silicon", "part": "imx8mm"} for point in points]


def test_a_list_of_keys_is_registered_together(desk: Desk) -> None:
    records = make_records(3)
    listed = desk.write("keys.json", json.dumps([*records, records[0]]))
    assert desk.read("key", "import", listed)["new"] == 3
    assert desk.read("key", "import", listed)["new"] == 0
    assert len(desk.read("key", "list")) == 3 and entries(desk) == ["key"] * 3
    assert desk.read("ledger", "verify")["entries"] == 3


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda records: [*records, {"public_key": "00", "origin": "silicon"}], 64, "record 4: "),
        (lambda records: [*records, 7], 64, "record 4: "),
        (lambda records: [], 64, "1 to 10000"),
        (lambda records: records * 4_000, 64, "1 to 10000"),
        (lambda records: [*records, {**records[0], "origin": "simulated"}], 77, "with other facts"),
    ],
    ids=["wrong record", "no record", "empty", "endless", "contradiction"],
)
def test_a_list_with_one_wrong_key_registers_none(desk: Desk, spoil: Any, code: int, said: str) -> None:
    ended, out, err = desk.run("key", "import", desk.write("keys.json", json.dumps(spoil(make_records(3)))))
    assert (ended, out) == (code, "") and said in err
    assert desk.read("key", "list") == [] and entries(desk) == []
