"""What befalls a TPM on a factory floor: cut power, killed programs, full slots, a dead line, a lockout."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mpagent.errors import ConfigWrong, HardwareBusy, HardwareGone, HardwareLockout
from mpagent.hal.tpm import open_tpm
from mpagent.hal.tpm.attest import TpmAttester
from mpagent.hal.tpm.chip import Chip, Meaning, open_chip
from mpagent.hal.tpm.objects import read_signature
from mpagent.hal.tpm.templates import STORAGE_ROOT
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import tpm2
from mpwire.secret import Secret

DEK = Secret(bytes(range(32)))
CUTS = 10
SLOTS = 3
"""Transient objects and loaded sessions that swtpm has room for."""


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


def list_leftovers(tpm: SoftTpm) -> list[str]:
    """Handles of objects and sessions that somebody left in the TPM, as tpm2-tools see them."""
    kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
    return [line for kind in kinds for line in tpm.use_tool("tpm2_getcap", kind).decode().split("\n") if line.strip()]


def read_lockout_counter(tpm: SoftTpm) -> int:
    lines = tpm.use_tool("tpm2_getcap", "properties-variable").decode().split("\n")
    (line,) = (line for line in lines if line.startswith("TPM2_PT_LOCKOUT_COUNTER"))
    return int(line.split(":")[1], 0)


def use_everything(tcti: str, shelf: MemoryShelf) -> bytes:
    """One call of every verb; the sealed blob."""
    with open_tpm(tcti, shelf) as parts:
        parts.attester.describe()
        parts.attester.attest(b"message")
        parts.keyring.find_or_make("sign").sign(b"message")
        parts.key_prover.prove("kem", bytes(32))
        parts.keyring.find_or_make("kem").ecdh(parts.keyring.find_or_make("sign").public_key())
        blob = parts.sealer.seal(DEK)
        assert parts.sealer.unseal(blob) == DEK
    return blob


def test_ten_power_cuts_lock_nothing(tpm: SoftTpm) -> None:
    """Each cut comes with keys loaded and no TPM2_Shutdown: what a TPM counts as an attack unless all is noDA."""
    shelf = MemoryShelf()
    blob = use_everything(tpm.tcti, shelf)
    for _ in range(CUTS):
        with open_tpm(tpm.tcti, shelf) as parts:
            assert parts.sealer.unseal(blob) == DEK
            parts.keyring.find_or_make("sign").sign(b"message")
            tpm.power_cycle()
    with open_tpm(tpm.tcti, shelf) as parts:
        assert parts.sealer.unseal(blob) == DEK
    assert read_lockout_counter(tpm) == 0


def use_a_protected_key(tpm: SoftTpm, folder: Path) -> None:
    """Another program seals, with the right password, under a key that has dictionary-attack protection."""
    context, message = str(folder / "key"), folder / "message"
    message.write_bytes(b"message")
    tpm.use_tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-p", "password", "-c", context)
    made = ["-u", str(folder / "public"), "-r", str(folder / "private")]
    tpm.use_tool("tpm2_create", "-C", context, "-P", "password", "-i", str(message), *made)
    tpm.use_tool("tpm2_flushcontext", "-t")


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
def test_agent_that_closes_keeps_others_from_being_locked_out(tpm: SoftTpm, tmp_path: Path, closed: bool) -> None:
    """T-105 Denial: what is not ours may be protected; a cut after our TPM2_Shutdown counts as none."""
    for cut in range(1, 3):
        use_a_protected_key(tpm, tmp_path)
        parts = open_tpm(tpm.tcti, MemoryShelf())
        parts.sealer.seal(DEK)
        if closed:
            parts.close()
        tpm.power_cycle()
        assert read_lockout_counter(tpm) == (0 if closed else cut)
        parts.close()


def test_nothing_stays_loaded(tpm: SoftTpm) -> None:
    use_everything(tpm.tcti, MemoryShelf())
    assert list_leftovers(tpm) == []


def test_nothing_stays_loaded_after_refusals(tpm: SoftTpm) -> None:
    """Every refused call must give back its slots, or the fourth one finds none."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        blob = parts.sealer.seal(DEK)
        damaged = blob[:-1] + bytes([blob[-1] ^ 1])
        for _ in range(2 * SLOTS):
            with pytest.raises(Exception, match="damaged"):
                parts.sealer.unseal(damaged)
            with pytest.raises(Exception, match="another EK or AK"):
                parts.activator.activate(b"\x00\x20" + bytes(66), b"\x00\x20" + bytes(66))
        assert parts.sealer.unseal(blob) == DEK
    assert list_leftovers(tpm) == []


VICTIM = """
import os, signal, sys
from mpagent.hal.tpm import open_tpm
from mpagent.hal.tpm.templates import STORAGE_ROOT
from mpsim.shelf import MemoryShelf
parts = open_tpm(sys.argv[1], MemoryShelf())
key = parts.keyring.find_or_make("sign").wrapped
parts.chip.private_session(inward=True)
with parts.chip.loaded(parts.attester.ak(), "loading"), parts.chip.loaded(key, "loading"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_programs_do_not_fill_the_tpm(tpm: SoftTpm) -> None:
    """Without a resource manager their objects stay; more programs die here than the TPM has slots."""
    for _ in range(SLOTS + 1):
        path = os.pathsep.join(sys.path)
        died = subprocess.run(
            [sys.executable, "-c", VICTIM, tpm.tcti], env={**os.environ, "PYTHONPATH": path}, check=False
        )
        assert died.returncode == -signal.SIGKILL
    assert list_leftovers(tpm) != []
    use_everything(tpm.tcti, MemoryShelf())
    assert list_leftovers(tpm) == []


def fill_with_primaries(tpm: SoftTpm, count: int) -> None:
    """As a program would that never heard of flushing."""
    for index in range(count):
        # tpm2_createprimary saves a context and flushes; loading it back leaves it there.
        context = f"{tpm.tcti.split('=')[1]}.{index}"
        tpm.use_tool("tpm2_createprimary", "-G", "ecc", "-c", context)
        tpm.use_tool("tpm2_startauthsession", "-S", f"{context}.session")


def test_sessions_others_saved_are_emptied_too(tpm: SoftTpm) -> None:
    fill_with_primaries(tpm, SLOTS)
    assert list_leftovers(tpm) != []
    use_everything(tpm.tcti, MemoryShelf())
    assert list_leftovers(tpm) == []


def test_full_tpm_is_busy_and_says_what_to_do(tpm: SoftTpm) -> None:
    """Somebody else's objects while we run: not ours to flush, and not a broken chip."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        chip, owner = parts.chip, parts.chip.tss.ESYS_TR.OWNER
        held = [chip.make_primary(owner, STORAGE_ROOT, "filling up")[0] for _ in range(SLOTS - 1)]
        with pytest.raises(HardwareBusy, match="/dev/tpmrm0"):
            parts.keyring.find_or_make("sign").sign(b"message")
            chip.make_primary(owner, STORAGE_ROOT, "filling up")
        for handle in held:
            with chip.holding(handle):
                pass
        parts.keyring.find_or_make("sign").sign(b"message")


def test_tpm_that_dies_in_the_middle_is_gone_and_then_back(tpm: SoftTpm) -> None:
    shelf = MemoryShelf()
    blob = use_everything(tpm.tcti, shelf)
    with open_tpm(tpm.tcti, shelf) as parts:
        tpm.cut_power()
        with pytest.raises(HardwareGone, match="does not answer"):
            parts.sealer.unseal(blob)
        with pytest.raises(HardwareGone):
            parts.attester.attest(b"message")
    tpm.start()
    with open_tpm(tpm.tcti, shelf) as parts:
        assert parts.sealer.unseal(blob) == DEK


def test_no_tpm_is_said_in_one_line_and_libtss2_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HardwareGone, match="no TPM answers at swtpm:path=") as gone:
        open_tpm(f"swtpm:path={tmp_path}/none", MemoryShelf())
    assert "\n" not in str(gone.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "tcti", ["", "device", "device:", "mssim:host=localhost", "libtpms:x", "cmd:sh", "/dev/tpmrm0"]
)
def test_only_named_ways_to_a_tpm_are_taken(tcti: str) -> None:
    """An empty string would try four ways in turn; "cmd" would run a program that the configuration names."""
    with pytest.raises(ConfigWrong, match="tpm_tcti"):
        open_chip(tcti)


def test_closing_twice_is_harmless(tpm: SoftTpm) -> None:
    parts = open_tpm(tpm.tcti, MemoryShelf())
    parts.chip.root()
    parts.close()
    parts.close()
    assert list_leftovers(tpm) == []


def test_lockout_is_reported_as_what_it_is(tpm: SoftTpm) -> None:
    """A TPM in lockout is neither broken nor tampered with; the text says when it ends."""
    tpm.use_tool("tpm2_dictionarylockout", "--setup-parameters", "--max-tries=2", "--recovery-time=77")
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        blob = parts.sealer.seal(DEK)
        guess_wrong(parts.chip, times=2)
        with pytest.raises(HardwareLockout, match=r"lockout \(2 of 2 failed tries\).*every 77 s"):
            guess_wrong(parts.chip, times=1)
        # Ours are noDA: a lockout that somebody else caused does not stop us.
        assert parts.sealer.unseal(blob) == DEK
    assert list_leftovers(tpm) == []


def guess_wrong(chip: Chip, times: int) -> None:
    """Try a wrong password on an object that is under dictionary-attack protection, unlike all of ours."""
    tss = chip.tss
    locked = tss.TPM2B_SENSITIVE_CREATE(tss.TPMS_SENSITIVE_CREATE(userAuth=b"password"))
    attributes = tpm2.BORN_HERE | tpm2.Attributes.USER_WITH_AUTH | tpm2.Attributes.SIGN
    area, _ = tss.TPMT_PUBLIC.unmarshal(
        tpm2.write_public(tpm2.Public(attributes, b"\x04" + bytes(64), scheme=tpm2.ALG_ECDSA))
    )
    wanted = tss.TPM2B_PUBLIC(publicArea=area)
    handle, *_ = chip.run("preparing", lambda esapi: esapi.create_primary(locked, wanted))
    with chip.holding(handle):
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
        unproven = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.OWNER)
        for _ in range(times):
            chip.run("guessing", lambda esapi: esapi.tr_set_auth(handle, b"wrong"))
            try:
                chip.run("guessing", lambda esapi: esapi.sign(handle, bytes(32), scheme, unproven))
            except HardwareGone as refused:
                assert "password" in str(refused)


class RestlessChip(Chip):
    """A board whose boot goes on while it is quoted: PCR 7 is extended before the PCRs are read, `times` times."""

    times = 0

    def run(self, doing: str, verb: Callable[[Any], Any], *meaning: Meaning) -> Any:
        if doing == "reading PCRs" and self.times:
            self.times -= 1
            digests = self.tss.TPML_DIGEST_VALUES()
            digests.count, digests.digests[0].hashAlg = 1, self.tss.TPM2_ALG.SHA256
            digests.digests[0].digest.sha256 = sha256(b"event").digest()
            super().run("extending", lambda esapi: esapi.pcr_extend(self.tss.ESYS_TR.PCR7, digests))
        return super().run(doing, verb, *meaning)


@pytest.fixture
def restless(tpm: SoftTpm) -> Iterator[RestlessChip]:
    opened = open_chip(tpm.tcti)
    opened.close()
    chip = RestlessChip(opened.tss, opened.tss.ESAPI(tpm.tcti))
    yield chip
    chip.close()


def test_pcr_that_moves_once_costs_a_second_quote(restless: RestlessChip) -> None:
    attester = TpmAttester(restless, MemoryShelf())
    restless.times = 1
    quote = attester.attest(b"message")
    ak = tpm2.read_public(attester.describe().ak_public or b"")
    assert quote.attest is not None
    tpm2.verify_quote(quote.attest, quote.signature, ak.unique, sha256(b"message").digest(), quote.pcrs)
    assert dict(quote.pcrs)[7] != bytes(32)


def test_pcrs_that_keep_moving_are_busy_and_bounded(restless: RestlessChip) -> None:
    attester = TpmAttester(restless, MemoryShelf())
    restless.times = 5
    with pytest.raises(HardwareBusy, match="PCRs change"):
        attester.attest(b"message")
    assert restless.times == 3


def test_short_parts_of_a_signature_are_padded(tpm: SoftTpm) -> None:
    """Another TPM may leave out leading zeros; r || s must not slide."""
    chip = open_chip(tpm.tcti)
    chip.close()
    signature = chip.tss.TPMT_SIGNATURE(sigAlg=chip.tss.TPM2_ALG.ECDSA)
    signature.signature.ecdsa.signatureR, signature.signature.ecdsa.signatureS = b"\x01" * 31, b"\x02"
    assert read_signature(signature) == b"\0" + b"\x01" * 31 + bytes(31) + b"\x02"
