"""What a board prints for its OEM's import list: public names of TPMs, cards and attestation keys, and no MP key."""

import json
from pathlib import Path

import pytest

from mpagent.hal.ports import AttesterMaterial
from mpagent.registration import find_origin, make_record, tell_key
from mpsim.swtpm import SoftTpm
from mpwire.ueid import name_card_key
from tests.line import class_point

from .doctor_bench import set_board
from .test_cli import Counter, counter

__all__ = ["counter"]  # a fixture

EK, AK = b"\x00\x0b" + bytes(32), b"\x00\x0b" + bytes([1] * 32)
TPM = AttesterMaterial("tpm", EK + AK)
MP = AttesterMaterial("mp", bytes(32), profile="raw", public_key=class_point())
CARD = AttesterMaterial("card", bytes(32), public_key=class_point(), x5chain=(b"der",))
OPTEE = AttesterMaterial("optee", bytes(32), rsa_public=b"der")


def test_only_keys_of_one_device_have_a_record() -> None:
    assert make_record(TPM, "silicon") == {"kind": "tpm", "ek_name": EK.hex(), "origin": "silicon"}
    assert make_record(OPTEE, "silicon") == {"kind": "optee", "public_key": b"der".hex(), "origin": "silicon"}
    assert make_record(CARD, "silicon") is None and make_record(MP, "silicon") is None


def test_nothing_is_told_of_an_mp_key() -> None:
    """T-292 Careless print: under mp_use secret its public half is the secret of the non-networked flow."""
    assert tell_key(MP) == {} == tell_key(OPTEE)
    assert tell_key(CARD) == {"card_key": name_card_key(class_point()).hex()}
    assert tell_key(TPM) == {"ek_name": EK.hex()}


@pytest.mark.parametrize(
    ("attester", "tcti", "origin"),
    [
        ("tpm", "device:/dev/tpmrm0", "silicon"),
        ("tpm", "swtpm:path=/run/tpm", "simulated"),
        ("tpm", None, "simulated"),
        ("optee", None, "silicon"),
        ("sim", "device:/dev/tpmrm0", "simulated"),
    ],
)
def test_a_part_in_software_is_not_called_silicon(attester: str, tcti: str | None, origin: str) -> None:
    assert find_origin(attester, tcti) == origin


def test_a_board_with_a_tpm_prints_its_ek_for_the_list(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b")
    with SoftTpm(tmp_path / "tpm") as tpm:
        parts = ('attest = "tpm"', 'seal = "tpm"', 'keys = "tpm"', 'soc = "sim"', 'sim_chip = "../chip"')
        set_board(disk, *parts, f'tpm_tcti = "{tpm.tcti}"')
        shown = json.loads(counter.run(disk, "evidence", "--json").stdout)
        text = counter.run(disk, "evidence").stdout.decode().splitlines()
        lines = {one["ability"]: one["cause"] for one in json.loads(counter.run(disk, "doctor", "--json").stdout)}
    assert shown["record"] == {"kind": "tpm", "ek_name": shown["ek_name"], "origin": "simulated"}
    assert shown["attester_id"].startswith(shown["ek_name"])
    assert json.loads(text[-1]) == shown["record"] == json.loads(lines["record tpm"])
    assert f"ek name {shown['ek_name']}" in lines["attest tpm"]


def test_a_board_with_mp_prints_no_record_and_no_key(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b")
    said = {words: counter.run(disk, *words).stdout for words in (("evidence",), ("evidence", "--json"), ("doctor",))}
    assert "record" not in json.loads(said["evidence", "--json"]) and b"import list" not in said["evidence",]
    assert b"attest sim" in said["doctor",] and b"record sim" not in said["doctor",]
    assert [one for one in said.values() if class_point()[1:33].hex().encode() in one] == []
