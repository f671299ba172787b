"""What only a real kernel shows: who may read a key, what is left behind, and that both ways to wrap give one form."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from mpagent.errors import HardwareAbsent
from mpagent.hal.caam import (
    KernelKeys,
    KernelLog,
    af_alg,
    dm_crypt,
    list_missing_options,
    list_options,
    open_kernel_key,
)
from mpagent.hal.caam.keyctl import SESSION
from mpagent.hal.caam.rings import Rings
from mpagent.hal.caam.source import Source, find_source, list_parts
from mpagent.hal.tpm.chip import open_chip
from mpwire.secret import Secret
from tests.qemu.bench.inside.conftest import TCTI, GuestRig

DEK = Secret(bytes(range(32)))
NONCE, AAD = bytes(range(12)), bytes(range(32))


@pytest.fixture
def keys() -> KernelKeys:
    """A session of this test."""
    made = KernelKeys()
    made.join_session()
    return made


def test_kernel_without_af_alg_opens_what_one_with_it_sealed(keys: KernelKeys) -> None:
    """T-485 Accident: a kernel update withdraws AF_ALG. No blob is lost, in either direction."""
    with GuestRig(1, "af_alg").open() as one:
        blob = one.sealer.seal(DEK)
    with GuestRig(1, "dm-crypt").open() as other:
        assert other.sealer.unseal(blob) == DEK
        blob = other.sealer.seal(DEK)
    with GuestRig(1, "af_alg").open() as one:
        assert one.sealer.unseal(blob) == DEK


def test_both_ways_give_the_same_bytes_and_find_every_change(keys: KernelKeys) -> None:
    """As both are CCM under one key."""
    with ExitStack() as stack:
        key = hold_trusted(stack, keys)
        ways = (af_alg.AfAlg(), dm_crypt.DmCrypt())
        first, second = (way.wrap(key, NONCE, AAD, DEK.reveal()) for way in ways)
        assert first == second and len(first) == 48
        for way in ways:
            assert way.unwrap(key, NONCE, AAD, first) == DEK.reveal()
            assert way.unwrap(key, NONCE, bytes(32), first) is None
            assert way.unwrap(key, bytes(12), AAD, first) is None
            assert way.unwrap(key, NONCE, AAD, first[:-1] + bytes([first[-1] ^ 1])) is None


def hold_trusted(stack: ExitStack, keys: KernelKeys) -> object:
    chip = open_chip(TCTI)
    stack.callback(chip.close)
    sealer = open_kernel_key(["tpm"], lambda: chip)
    blob = sealer.seal(DEK)
    length = int.from_bytes(blob[5:7], "big")
    return stack.enter_context(Rings(keys).hold("trusted", b"load " + blob[7 : 7 + length]))


def test_nothing_is_left_behind(keys: KernelKeys) -> None:
    """No key, no ring, no mapped volume, no loop device."""
    with GuestRig(1, "dm-crypt").open() as board:
        board.sealer.unseal(board.sealer.seal(DEK))
        assert keys._keyctl(11, SESSION, None, 0) == 0, "the session keyring still has links"
    assert not list(Path("/sys/block").glob("dm-*"))
    assert not list(Path("/sys/block").glob("loop*/loop/backing_file"))


def test_key_is_for_its_holder_alone(keys: KernelKeys) -> None:
    """T-484 Neighbour: another process of the same user neither reads nor uses the key, by its serial."""
    with Rings(keys).hold("user", bytes(32)) as key:
        seen = subprocess.run(["keyctl", "session", "-", "keyctl", "read", str(key.serial)], capture_output=True)
        assert seen.returncode != 0 and b"denied" in seen.stderr
        assert keys.read(key.serial) == bytes(32)


def test_af_alg_is_offered_here_and_only_for_keys_that_may_be_used(keys: KernelKeys) -> None:
    with Rings(keys).hold("user", bytes(32)) as key:
        assert af_alg.is_offered(key.serial)
        serial = key.serial
    with pytest.raises(OSError):
        af_alg.is_offered(serial)


def test_source_is_read_from_the_kernel_itself(keys: KernelKeys) -> None:
    assert find_source(keys, Path("/")) is Source.TPM
    assert list_parts(Path("/")) == ("tpm",)


def test_image_for_caam_alone_is_refused(keys: KernelKeys) -> None:
    with pytest.raises(HardwareAbsent, match="come from tpm"):
        open_kernel_key(["caam"])


def test_line_of_the_test_key_is_found_in_the_real_log() -> None:
    """Written there by us, as no CAAM is here."""
    with KernelLog(Path("/")) as log:
        assert log.readable and log.saw_test_key() is False
        Path("/dev/kmsg").write_bytes(b"caam_jr: using insecure test key, enable HAB to use unique device key!\n")
        assert log.saw_test_key() is True
        assert log.saw_test_key() is False


def test_kernel_of_the_bench_has_every_option_of_the_fragment() -> None:
    """The same list that doctor reads."""
    assert list_missing_options({option.section for option in list_options()}) == ()
