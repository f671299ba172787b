"""A server whose keys are in a token, as its operator has it: set up, serving over HTTPS, audited, and broken."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpserver.authority import FileAuthority, make_keystore
from mpserver.keystore import Keystore
from mpserver.token import objects, policy
from mpserver.token.pool import LOOK_AGAIN_S, Session
from mpsim.softhsm import PIN, SoftHsm
from mpwire.secret import Secret
from tests.mpserver.desk import Desk
from tests.mpserver.server import run_tool, running, set_up
from tests.mpserver.tokens import NOW, TokenOffice, safe_of

LABEL = "oem"
KEYS = [f"mpserver/{name}" for name in ("bundle", "ca", "grant", "head", "root", "symmetric")]


@pytest.fixture
def token(tmp_path: Path) -> SoftHsm:
    """Initialised and empty, in its slot."""
    made = SoftHsm(tmp_path / "token", LABEL)
    made.initialize()
    return made


@pytest.fixture
def words(token: SoftHsm) -> list[str]:
    """What init is told."""
    return ["--hsm", str(token.make_module()), "--token", LABEL, "--pin-file", str(token.pin_file)]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> Desk:
    """A server, set up."""
    made = Desk(tmp_path, capsys)
    assert made.read("init", "--realm", "lab", *words)["keys"] == f"token {LABEL}"
    return made


def test_a_board_enrolls_and_the_ledger_verifies_with_every_key_in_the_token(
    tmp_path: Path, token: SoftHsm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """From init to a finished board, with real processes; then the token is pulled while the server runs."""
    state = set_up(tmp_path, 4, words)
    desk = Desk(tmp_path, capsys)
    capsys.readouterr()
    with running(tmp_path, state, more=token.environment) as server:
        code, said, _ = server.enroll("one")
        assert code == 0, said

        server.flash("two")
        token.pull()
        code, said, _ = server.enroll("two")
        assert code == 75, said
        assert any(line.get("event") == "not-now" and line.get("check") == "token" for line in server.log)
        token.put_back()
        time.sleep(LOOK_AGAIN_S)
        code, said, _ = server.enroll("two")
        assert code == 0, said

        lived = Path(f"/proc/{server.process.pid}")
        told = (lived / "cmdline").read_bytes() + (lived / "environ").read_bytes()
        assert server.stop() == 0
    assert PIN.encode() not in told
    assert desk.read("ledger", "verify")
    assert [row["trouble"] for row in desk.read("hsm", "audit")] == [""] * 7
    with closing(sqlite3.connect(state / "ledger.db")) as ledger:
        assert ledger.execute("SELECT granted FROM jobs").fetchone() == (2,)
    assert desk.run("job", "end", "job-1")[0] == 0
    assert [row["label"] for row in desk.read("hsm", "audit")] == KEYS


def test_the_pin_stands_nowhere_but_in_its_file(tmp_path: Path, token: SoftHsm, words: list[str]) -> None:
    """T-613 PIN in argument list or log: commands that work and that fail, and all they leave behind."""
    state, said = tmp_path / "state", ""
    for line in (
        ("init", "--realm", "lab", *words),
        *(("hsm", "status"), ("hsm", "audit"), ("hsm", "status", "--json"), ("doctor",)),
        ("init", "--realm", "lab", *words),
    ):
        done = run_tool("mpserver", "--dir", str(state), *line, more=token.environment)
        said += done.stdout + done.stderr
    token.pin_file.write_text(f"{PIN}7\n")
    done = run_tool("mpserver", "--dir", str(state), "doctor", more=token.environment)
    assert done.returncode == 78 and "PIN" in done.stderr
    assert PIN not in said + done.stdout + done.stderr
    for path in state.rglob("*"):
        assert not path.is_file() or PIN.encode() not in path.read_bytes(), path


def test_the_token_derives_what_files_derive_from_the_same_root(tmp_path: Path) -> None:
    """So that neither construction can move: a root known here is imported past the policy, which forbids it."""
    root, office = Secret(os.urandom(32)), TokenOffice(tmp_path / "oem").found()
    make_keystore(tmp_path / "keys", "lab", (), NOW)
    (tmp_path / "keys" / "symmetric.key").write_text(root.reveal().hex())
    files, token = FileAuthority(Keystore(tmp_path / "keys"), "lab", office.clock), office.open()

    def take(session: Session) -> None:
        template = objects.write_template(session, root, "SIGN", {**policy.CLOSED, "TOKEN": False})
        session.objects[policy.SYMMETRIC] = session.raw.create_object(template)

    safe_of(token).pool.run("importing", take)
    for label, context in ((b"", b""), (b"mpagent/1/nonce", b"\0\0\0\1"), (os.urandom(200), os.urandom(5_000))):
        assert token.derive(label, context) == files.derive(label, context)


def test_status_tells_what_the_token_can_do(desk: Desk, token: SoftHsm) -> None:
    found = desk.read("hsm", "status")
    assert (found["token"], found["keys"], found["lacks"]) == (LABEL, 6, [])
    assert found["vault"] == "HMAC in the token" and found["threads"] == "the module locks"
    assert "SoftHSM" in found["maker"]


def test_commands_say_that_the_token_is_away_and_end_with_75(desk: Desk, token: SoftHsm) -> None:
    token.pull()
    for line in (("hsm", "status"), ("hsm", "audit"), ("doctor",), ("run", "--port", "0")):
        time.sleep(LOOK_AGAIN_S / 50)
        code, out, err = desk.run(*line)
        assert (code, out) == (75, ""), line
        assert err == f"mpserver: token (no token '{LABEL}' is in a slot (there: none): put it in)\n"
    assert desk.run("ledger", "verify")[0] == desk.run("job", "list")[0] == 0  # they need no key
    token.put_back()
    assert desk.run("doctor")[0] == 0


def test_the_doctor_names_a_key_that_is_not_as_it_has_to_be(desk: Desk) -> None:
    assert ["token", True] in [[line["check"], line["ok"]] for line in desk.read("doctor")]
    with closing(sqlite3.connect(desk.state / "ledger.db")) as ledger, ledger:
        ledger.execute(
            "INSERT INTO jobs (name, product, quota, state, place, author, created_at)"
            " VALUES ('lot-9', 'camera', 1, 'open', 1, 't', 1)"
        )
    lines = {line["check"]: line for line in desk.read("doctor", code=77)}
    assert "not as they have to be: mpserver/job/lot-9" in lines["token"]["said"]
    assert lines["token"]["next"] == "mpserver hsm audit"
    code, out, _ = desk.run("hsm", "audit")
    assert code == 65 and "FAIL mpserver/job/lot-9: it is missing, and the job is open" in out
    assert out.endswith("7 keys, 1 not as they have to be\n")


def test_keys_in_files_have_no_token_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, capsys)
    assert desk.run("init", "--realm", "lab")[0] == 0
    for verb in ("status", "audit"):
        code, _, err = desk.run("hsm", verb)
        assert code == 78 and "keys of this server lie in files" in err


@pytest.mark.parametrize("left_out", ["--hsm", "--token", "--pin-file"])
def test_a_token_that_is_half_named_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], left_out: str
) -> None:
    at = words.index(left_out)
    code, _, err = Desk(tmp_path, capsys).run("init", "--realm", "lab", *words[:at], *words[at + 2 :])
    assert code == 64 and f"{left_out} is missing" in err
    assert not (tmp_path / "state").exists()


def test_production_with_a_token_still_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, _, err = Desk(tmp_path, capsys).run("init", "--realm", "production", *words)
    assert code == 78 and "two people with passkeys" in err
    assert not (tmp_path / "state").exists()


def test_a_token_that_lacks_a_mechanism_gets_no_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: SoftHsm, words: list[str]
) -> None:
    token.offer(["CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA", "CKM_GENERIC_SECRET_KEY_GEN", "CKM_SHA256_HMAC"])
    code, _, err = Desk(tmp_path, capsys).run("init", "--realm", "lab", *words)
    assert code == 78 and "does not offer CKM_AES_KEY_GEN, CKM_AES_GCM" in err
    assert not (tmp_path / "state" / "keys").exists()


def test_of_two_tokens_with_one_label_the_serial_number_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: SoftHsm, words: list[str]
) -> None:
    token.initialize()
    desk = Desk(tmp_path, capsys)
    code, _, err = desk.run("init", "--realm", "lab", *words)
    assert code == 78 and "2 tokens are labelled 'oem' (serial numbers " in err
    serial = err.split("serial numbers ")[1].split(",")[0]
    assert desk.run("init", "--realm", "lab", *words, "--serial", serial)[0] == 0
    assert desk.read("hsm", "status")["serial"] == serial


class Blank:
    """A slot with a token that nobody initialised, and two PIN files."""

    def __init__(self, folder: Path, desk: Desk) -> None:
        self.token = SoftHsm(folder / "token", LABEL)
        self.module = self.token.make_module()
        self.so_pin = Path(desk.write("so", "1234-5678\n"))
        self.so_pin.chmod(0o600)
        self._desk = desk

    def init(self, **changes: Any) -> tuple[int, str, str]:
        """`hsm init`."""
        said = {"so": self.so_pin, "pin": self.token.pin_file, "label": LABEL, **changes}
        words = ("--module", str(self.module), "--token", said["label"])
        return self._desk.run("hsm", "init", *words, "--so-pin-file", str(said["so"]), "--pin-file", str(said["pin"]))


def test_a_blank_token_is_initialised_once_and_takes_an_issuer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And never again: C_InitToken destroys what is in a token."""
    desk = Desk(tmp_path, capsys)
    blank = Blank(tmp_path, desk)
    code, out, err = blank.init()
    assert code == 0 and f"token '{LABEL}' initialised" in out, err
    words = ("--hsm", str(blank.module), "--token", LABEL, "--pin-file", str(blank.token.pin_file))
    assert desk.run("init", "--realm", "lab", *words)[0] == 0
    before = desk.read("hsm", "audit")
    code, _, err = blank.init()
    assert code == 78 and "is there already: nothing was changed" in err
    assert desk.read("hsm", "audit") == before and len(before) == 6


def test_one_pin_for_two_people_and_a_label_that_does_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = Blank(tmp_path, Desk(tmp_path, capsys))
    for changes, text in (
        ({"so": blank.token.pin_file}, "are the same"),
        ({"label": "x" * 33}, "1 to 32 bytes"),
        ({"label": ""}, "1 to 32 bytes"),
    ):
        code, _, err = blank.init(**changes)
        assert code == 78 and text in err
    assert list(blank.token.tokens.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "module = 1", "nonsense", 'module = "/x"', 'extra = "x"', 'check = "zz"', 'check = ""', 'check = "00"'),
        'issuer = "00"',
        "\xff",
    ],
)
def test_settings_that_cannot_be_followed_are_named(desk: Desk, text: str) -> None:
    path = desk.state / "keys" / "hsm.toml"
    good = path.read_text()
    lines = [line for line in good.splitlines() if not text or line.split(" ")[0] != text.split(" ")[0]]
    path.write_bytes("\n".join([*lines, text] if text else [text]).encode("latin-1"))
    code, _, err = desk.run("doctor")
    assert code == 78 and ("hsm.toml" in err or "no PKCS#11 module" in err)
    path.write_text(good)
    assert desk.run("doctor")[0] == 0


def test_a_credential_of_the_unit_is_a_pin_file_as_well(
    desk: Desk, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = desk.state / "keys" / "hsm.toml"
    path.write_text(path.read_text().replace(str(token.pin_file), "hsm-pin"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    code, _, err = desk.run("hsm", "status")
    assert code == 78 and "nor a credential of this unit" in err
    folder = desk.folder / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "hsm-pin").write_text(f"{PIN}\n")
    (folder / "hsm-pin").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    time.sleep(LOOK_AGAIN_S)
    assert desk.run("hsm", "status")[0] == 0


def test_pcr_approvals_are_signed_in_the_token(desk: Desk) -> None:
    made = desk.read("tpm", "init-pcr-authority")
    again = desk.read("tpm", "init-pcr-authority")
    assert (made["new"], again["new"]) == (True, False) and made["pcr_authority"] == again["pcr_authority"]
    assert "mpserver/pcr-authority" in [row["label"] for row in desk.read("hsm", "audit")]
    assert not (desk.state / "keys" / "pcr-authority.pem").exists()
