"""A TPM with room for three objects and three sessions, of which another program holds some."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from mpagent.errors import HardwareBusy
from mpagent.hal.tpm import TpmParts
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import p256
from mpwire.secret import Secret
from tests.mpagent.measured import MeasuredBoard

DEK = Secret(bytes(range(32)))
SLOTS = 3
HOLDER = """
import sys
from importlib import import_module
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.templates import STORAGE_ROOT
tss = import_module("tpm2_pytss")
chip = Chip(tss, tss.ESAPI(sys.argv[1]))
held = [chip.make_primary(tss.ESYS_TR.OWNER, STORAGE_ROOT, "holding")[0] for _ in range(int(sys.argv[2]))]
for _ in range(int(sys.argv[3])):
    null = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
    held.append(chip.run("holding", lambda esapi: esapi.start_auth_session(
        tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.HMAC, null, tss.TPM2_ALG.SHA256)))
print("held", flush=True)
sys.stdin.read()
for one in held:
    chip.run("letting go", lambda esapi: esapi.flush_context(one))
print("free", flush=True)
"""


@contextmanager
def held_by_another(tpm: SoftTpm, objects: int = 0, sessions: int = 0) -> Iterator[None]:
    """Another process that holds slots while the block runs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", HOLDER, tpm.tcti, str(objects), str(sessions)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            other.stdin.close()
            assert other.stdout.readline() == b"free\n"
    assert other.returncode == 0


def list_loaded(tpm: SoftTpm) -> list[str]:
    kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
    return [line for kind in kinds for line in tpm.use_tool("tpm2_getcap", kind).decode().split("\n") if line.strip()]


def activate(parts: TpmParts) -> None:
    material = parts.attester.describe()
    public, _ = parts.chip.tss.TPMT_PUBLIC.unmarshal(material.ek_public)
    make = import_module("tpm2_pytss.utils").make_credential
    blob, encrypted = make(public, DEK.reveal(), material.attester_id[34:])
    assert parts.activator.activate(bytes(blob), bytes(encrypted)) == DEK


VERBS: dict[str, Callable[[TpmParts, bytes], object]] = {
    "quote": lambda parts, _: parts.attester.attest(b"message"),
    "sign": lambda parts, _: parts.keyring.find_or_make("sign").sign(b"message"),
    "agree": lambda parts, _: parts.keyring.find_or_make("kem").ecdh(p256.SoftKey.generate().public_key()),
    "certify": lambda parts, _: parts.key_prover.prove("sign", bytes(32)),
    "activate": lambda parts, _: activate(parts),
    "seal": lambda parts, _: parts.sealer.seal(DEK),
    "unseal": lambda parts, blob: parts.sealer.unseal(blob),
    "count": lambda parts, _: parts.counter.read(),
}
WORK: dict[tuple[int, int], set[str]] = {
    (0, 0): set(VERBS),
    (1, 0): {"quote", "sign", "agree", "seal", "unseal", "count"},
    (2, 0): {"count"},
    (0, 1): set(VERBS),
    (0, 2): {"quote", "sign", "agree", "certify", "seal", "count"},
    (0, 3): {"quote", "sign", "certify"},
    (1, 2): {"quote", "sign", "agree", "seal", "count"},
}
"""What still works while another program holds (objects, sessions)."""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[MeasuredBoard]:
    """Sealed keys under a PCR policy, which takes the most slots."""
    with SoftTpm(tmp_path / "tpm") as tpm:
        made = MeasuredBoard(tpm, tmp_path / "pcrs")
        made.boot("loader")
        made.approve("loader")
        yield made


@pytest.mark.parametrize("held", WORK, ids=str)
def test_what_lacks_a_slot_is_busy_and_works_when_it_is_free(board: MeasuredBoard, held: tuple[int, int]) -> None:
    """T-107 Full TPM: neither broken nor tampered with, nothing left behind, and all is well a moment later."""
    shelf = MemoryShelf()
    with board.open(shelf) as parts:
        blob = parts.sealer.seal(DEK)
        for name in VERBS:
            VERBS[name](parts, blob)  # keys are made
    worked = set()
    for name, verb in VERBS.items():
        with board.open(shelf) as parts:
            with held_by_another(board.tpm, *held):
                try:
                    verb(parts, blob)
                    worked.add(name)
                except HardwareBusy as busy:
                    assert "another program holds them" in str(busy)
            verb(parts, blob)
        assert list_loaded(board.tpm) == []
    assert worked == WORK[held]
