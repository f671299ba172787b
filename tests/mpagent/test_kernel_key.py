"""The kernel-key sealer over an imitated kernel: which source is in force, what each refusal means, what is left."""

import errno
import os
import platform
from pathlib import Path

import pytest

from mpagent.advice import advise
from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareBusy, HardwareGone, NotMine
from mpagent.hal.caam import KernelKeySealer, KernelLog, open_kernel_key, opens_open_blob
from mpagent.hal.caam.keyctl import find_calls
from mpagent.hal.caam.source import Source, list_parts
from mpsim.kernel_keys import SoftKernel, SoftWrapper
from mpwire.errors import Malformed, MpError
from mpwire.secret import Secret

DEK = Secret(bytes(range(32)))
ALL = ("caam", "tee", "tpm", "dcp")


def open_over(kernel: SoftKernel, root: Path, *accepted: str) -> KernelKeySealer:
    return open_kernel_key(accepted or ALL, root=root, keys=kernel, wrapper=SoftWrapper(kernel))


def plant(root: Path, *names: str) -> None:
    """Hardware in the device tree, on the TEE bus or in class tpm."""
    for number, name in enumerate(names):
        if name == "tpm":
            (root / "sys/class/tpm/tpm0").mkdir(parents=True)
        elif name == "tee":
            (root / "sys/bus/tee/devices/optee-ta-f04a0fe7-1f5d-4b9b-abf7-619b85b4ce8c").mkdir(parents=True)
        else:
            node = root / f"sys/bus/platform/devices/{number}.crypto/of_node"
            node.mkdir(parents=True)
            (node / "compatible").write_bytes(name.encode() + b"\0simple-bus\0")


@pytest.mark.parametrize(("source", "name"), [("caam", "caam"), ("tee", "kernel-tee"), ("dcp", "kernel-dcp")])
def test_source_is_told_by_the_form_of_its_blobs(tmp_path: Path, source: str, name: str) -> None:
    kernel = SoftKernel(tmp_path, source)
    sealer = open_over(kernel, tmp_path)
    blob = sealer.seal(DEK)
    assert (sealer.name, sealer.wrapper_name, sealer.source.word) == (name, "soft", source)
    kernel.reboot()
    assert open_over(kernel, tmp_path).unseal(blob) == DEK
    assert kernel.keys_held == 0


def test_blob_of_an_unknown_form_is_no_source(tmp_path: Path) -> None:
    """A kernel of tomorrow seals in a way that nobody has looked at."""

    class Strange(SoftKernel):
        def read(self, serial: int) -> bytes:
            return super().read(serial) + b"00"

    with pytest.raises(HardwareGone, match="form that is not known") as refused:
        open_over(Strange(tmp_path, "caam"), tmp_path)
    assert "trusted.source" in advise(refused.value)


def test_key_that_prints_no_digits_is_nonsense(tmp_path: Path) -> None:
    class Strange(SoftKernel):
        def read(self, serial: int) -> bytes:
            return b"xyz"

    with pytest.raises(HardwareGone, match="no hexadecimal number"):
        open_over(Strange(tmp_path, "caam"), tmp_path)


def test_source_the_image_does_not_take_moves_on(tmp_path: Path) -> None:
    with pytest.raises(HardwareAbsent, match=r"come from tee, and the image takes caam") as refused:
        open_over(SoftKernel(tmp_path, "tee"), tmp_path, "caam")
    assert "name tee" in advise(refused.value)


def test_source_that_the_image_wants_and_the_kernel_leaves_unused_stops(tmp_path: Path) -> None:
    """T-482 Downgrade: a board with a CAAM falls to no weaker backend because the kernel's command line says so."""
    plant(tmp_path, "fsl,sec-v4.0", "tee")
    with pytest.raises(HardwareGone) as refused:
        open_over(SoftKernel(tmp_path, "tee"), tmp_path, "caam")
    assert not isinstance(refused.value, HardwareAbsent)
    assert advise(refused.value) == "boot with trusted.source=caam"


def test_board_without_trusted_keys_has_no_such_part(tmp_path: Path) -> None:
    with pytest.raises(HardwareAbsent, match="no trusted keys") as refused:
        open_over(SoftKernel(tmp_path, None), tmp_path)
    assert "CONFIG_TRUSTED_KEYS" in advise(refused.value)


@pytest.mark.parametrize(
    ("part", "word"), [("fsl,sec-v4.0", "caam"), ("fsl,imx6ull-dcp", "dcp"), ("tee", "tee"), ("tpm", "tpm")]
)
def test_part_that_the_kernel_makes_no_keys_from_is_broken(tmp_path: Path, part: str, word: str) -> None:
    plant(tmp_path, "fsl,imx8mm-uart", part)
    assert list_parts(tmp_path) == (word,)
    with pytest.raises(HardwareGone, match=f"the board has {word}") as refused:
        open_over(SoftKernel(tmp_path, None), tmp_path)
    assert not isinstance(refused.value, HardwareAbsent)
    assert f"trusted.source={word}" in advise(refused.value)
    assert f"CONFIG_TRUSTED_KEYS_{word.upper()}" in advise(refused.value)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (errno.ENOSYS, HardwareAbsent, "no keyrings"),
        (errno.EPERM, HardwareGone, "closed to this program"),
        (errno.EACCES, HardwareGone, "closed to this program"),
        (errno.EDQUOT, HardwareBusy, "quota"),
        (errno.EIO, HardwareGone, "EIO"),
    ],
)
def test_refusal_of_the_call_itself_is_named(tmp_path: Path, code: int, kind: type[MpError], text: str) -> None:
    kernel = SoftKernel(tmp_path, "caam")
    kernel.fails_with = code
    with pytest.raises(kind, match=text) as refused:
        open_over(kernel, tmp_path)
    assert advise(refused.value)
    assert kernel.keys_held == 0


def test_session_that_cannot_be_joined_is_named(tmp_path: Path) -> None:
    """A service whose filter of system calls leaves keyctl out."""

    class Filtered(SoftKernel):
        def join_session(self) -> None:
            raise OSError(errno.EPERM, "filtered")

    with pytest.raises(HardwareGone, match="joining a session keyring") as refused:
        open_over(Filtered(tmp_path, "caam"), tmp_path)
    assert "@keyring" in advise(refused.value)


def test_this_machine_has_no_caam_and_says_so_in_words() -> None:
    """The real system calls, whatever the kernel under the tests answers to them."""
    with pytest.raises(HardwareGone) as refused:
        open_kernel_key(["caam"])
    assert advise(refused.value)


@pytest.mark.parametrize("accepted", [(), ("optee",), ("caam", "plain")])
def test_list_of_sources_is_closed(tmp_path: Path, accepted: tuple[str, ...]) -> None:
    with pytest.raises(ConfigWrong, match="caam, tee, tpm, dcp"):
        open_kernel_key(accepted, root=tmp_path, keys=SoftKernel(tmp_path, "caam"))


def test_source_tpm_wants_to_know_the_tpm(tmp_path: Path) -> None:
    with pytest.raises(ConfigWrong, match="tpm_tcti"):
        open_over(SoftKernel(tmp_path, "tpm"), tmp_path)


def test_blob_from_before_the_part_was_closed_names_its_causes(tmp_path: Path) -> None:
    """T-483 Test key: what was sealed while the part was open. The CAAM has another key once it is closed."""
    kernel = SoftKernel(tmp_path, "caam", closed=False)
    blob = open_over(kernel, tmp_path).seal(DEK)
    kernel.closed = True
    with pytest.raises(NotMine, match=r"life cycle changed .* PRIBLOB .* job ring .* another chip") as refused:
        open_over(kernel, tmp_path).unseal(blob)
    assert "EBADMSG" in refused.value.detail
    assert kernel.keys_held == 0


@pytest.mark.parametrize(("source", "cause"), [("tee", "boot software"), ("dcp", "dcp_use_otp_key")])
def test_blob_of_another_chip_names_its_causes(tmp_path: Path, source: str, cause: str) -> None:
    blob = open_over(SoftKernel(tmp_path, source), tmp_path).seal(DEK)
    with pytest.raises(NotMine, match=cause):
        open_over(SoftKernel(tmp_path, source), tmp_path).unseal(blob)


def test_blob_of_another_source_names_both(tmp_path: Path) -> None:
    """The kernel's command line changed since: nothing is lost, and the text says what brings it back."""
    kernel = SoftKernel(tmp_path, "caam")
    blob = open_over(kernel, tmp_path).seal(DEK)
    kernel.source = "tee"
    with pytest.raises(HardwareGone, match="came from caam; in this boot they come from tee") as refused:
        open_over(kernel, tmp_path).unseal(blob)
    assert "trusted.source=caam" in advise(refused.value)
    kernel.source = "caam"
    assert open_over(kernel, tmp_path).unseal(blob) == DEK


@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT, errno.ENODEV])
def test_stalled_caam_is_no_foreign_blob(tmp_path: Path, code: int) -> None:
    """A gated clock must not end in a board that is set aside."""
    kernel = SoftKernel(tmp_path, "caam")
    sealer = open_over(kernel, tmp_path)
    blob = sealer.seal(DEK)
    kernel.fails_with = code
    with pytest.raises(HardwareGone, match="fails to open any blob") as refused:
        sealer.unseal(blob)
    assert "clk_ignore_unused" in advise(refused.value)
    assert sealer.unseal(blob) == DEK


def test_busy_kernel_loses_nothing(tmp_path: Path) -> None:
    kernel = SoftKernel(tmp_path, "caam")
    sealer = open_over(kernel, tmp_path)
    blob = sealer.seal(DEK)
    for code in (errno.EBUSY, errno.ENOMEM):
        kernel.fails_with = code
        with pytest.raises(HardwareBusy):
            sealer.unseal(blob)
        kernel.fails_with = code
        with pytest.raises(HardwareBusy):
            sealer.seal(DEK)
    assert sealer.unseal(blob) == DEK and kernel.keys_held == 0


def test_kernel_that_opens_another_key_than_it_sealed_is_caught_before_it_matters(tmp_path: Path) -> None:
    """A part that seals and does not open again: seal() says so, and not the next boot."""

    class Forgetful(SoftWrapper):
        def unwrap(self, key: object, nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
            return bytes(32)

    kernel = SoftKernel(tmp_path, "caam")
    sealer = open_kernel_key(["caam"], root=tmp_path, keys=kernel, wrapper=Forgetful(kernel))
    with pytest.raises(HardwareGone, match="other than the one it has just sealed"):
        sealer.seal(DEK)
    assert kernel.keys_held == 0


def test_part_that_seals_what_it_cannot_open_is_broken_and_not_foreign(tmp_path: Path) -> None:
    """A life cycle half changed: without the reload the board would be set aside at its next boot."""

    class Deaf(SoftKernel):
        def _open(self, blob: bytes) -> bytes:
            raise OSError(errno.EBADMSG, "refused")

    kernel = Deaf(tmp_path, "caam")
    with pytest.raises(HardwareGone, match="does not open what it has just sealed") as refused:
        open_over(kernel, tmp_path).seal(DEK)
    assert "life cycle" in refused.value.detail
    assert kernel.keys_held == 0


def test_source_that_changes_its_form_half_way_is_caught(tmp_path: Path) -> None:
    kernel = SoftKernel(tmp_path, "caam")
    sealer = open_over(kernel, tmp_path)
    kernel.source = "tee"
    with pytest.raises(HardwareGone, match="changed their form"):
        sealer.seal(DEK)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EINVAL])
def test_wrapper_that_fails_is_named(tmp_path: Path, code: int) -> None:
    kernel = SoftKernel(tmp_path, "caam")
    wrapper = SoftWrapper(kernel)
    sealer = open_kernel_key(["caam"], root=tmp_path, keys=kernel, wrapper=wrapper)
    blob = sealer.seal(DEK)
    wrapper.fails_with = code
    for verb in (lambda: sealer.seal(DEK), lambda: sealer.unseal(blob)):
        with pytest.raises((HardwareBusy, HardwareGone), match="wrapping a key by soft"):
            verb()
    assert kernel.keys_held == 0


def test_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    class Mute(SoftKernel):
        silent = False

        def read(self, serial: int) -> bytes:
            if self.silent:
                raise OSError(errno.EACCES, "not possessed")
            return super().read(serial)

    kernel = Mute(tmp_path, "caam")
    sealer = open_over(kernel, tmp_path)
    kernel.silent = True
    with pytest.raises(HardwareGone, match="reading a trusted key's blob"):
        sealer.seal(DEK)


def test_tpm_whose_objects_are_too_large_is_named(tmp_path: Path) -> None:
    """Before anything is wrapped under them."""

    class Large:
        def seal(self, kek: Secret) -> bytes:
            return b"\x30" * 500

    kernel = SoftKernel(tmp_path, "tpm")
    sealer = KernelKeySealer(kernel, SoftWrapper(kernel), Source.TPM, Large())  # type: ignore[arg-type]
    with pytest.raises(HardwareGone, match="too large: 1000 digits, 957 fit"):
        sealer.seal(DEK)


def test_part_that_leaves_while_we_look_is_not_there(tmp_path: Path) -> None:
    """Its entry in the device tree is there, and cannot be read."""
    (tmp_path / "sys/bus/platform/devices/0.crypto/of_node/compatible").mkdir(parents=True)
    assert list_parts(tmp_path) == ()


def test_open_part_is_seen_by_its_test_key_and_its_log(tmp_path: Path) -> None:
    """T-483 Test key: the line is a reason to refuse; a log that cannot be read is no proof of the contrary."""
    opened, closed = SoftKernel(tmp_path / "a", "caam", closed=False), SoftKernel(tmp_path / "b", "caam")
    assert open_over(opened, tmp_path / "a").test_key is True
    assert open_over(closed, tmp_path / "b").test_key is False
    (tmp_path / "b/dev/kmsg").unlink()
    assert open_over(closed, tmp_path / "b").test_key is None
    tee = SoftKernel(tmp_path / "c", "tee")
    assert open_over(tee, tmp_path / "c").test_key is None


def test_line_of_an_earlier_boot_does_not_count(tmp_path: Path) -> None:
    """What the kernel said before the start was said of other keys."""
    kernel = SoftKernel(tmp_path, "caam", closed=False)
    open_over(kernel, tmp_path)
    kernel.closed = True
    assert open_over(kernel, tmp_path).test_key is False


def test_log_that_is_no_log_tells_nothing(tmp_path: Path) -> None:
    """A pipe in its place; nor does it stay open."""
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    held = len(os.listdir("/proc/self/fd"))
    with KernelLog(tmp_path) as log:
        assert not log.readable and log.saw_test_key() is None
        assert len(os.listdir("/proc/self/fd")) == held


def test_log_that_is_closed_tells_nothing(tmp_path: Path) -> None:
    SoftKernel(tmp_path, "caam")
    with KernelLog(tmp_path) as log:
        (tmp_path / "dev/kmsg").write_bytes(b"6,2,2,-;random: crng init done\n")
        assert log.readable and log.saw_test_key() is False
    assert not log.readable and log.saw_test_key() is None


def test_blob_of_any_open_part_opens_on_open_parts_alone(tmp_path: Path) -> None:
    """One test blob serves all: open parts share a key. A closed part refuses it, and that is the proof."""
    maker = SoftKernel(tmp_path / "a", "caam", closed=False)
    ring = maker.add_ring("made")
    digits = maker.read(maker.add("trusted", "made", b"new 32", ring)).decode()
    board = SoftKernel(tmp_path / "b", "caam", closed=False)
    assert opens_open_blob(board, digits) is True
    board.closed = True
    assert opens_open_blob(board, digits) is False
    board.fails_with = errno.EIO
    with pytest.raises(HardwareGone):
        opens_open_blob(board, digits)
    assert board.keys_held == 0


@pytest.mark.parametrize("digits", ["", "zz", "00" * 47, "00" * 81])
def test_short_blob_never_reaches_the_caam(tmp_path: Path, digits: str) -> None:
    """Its driver takes 48 from the length without a look."""
    with pytest.raises(Malformed, match="160 hexadecimal digits"):
        opens_open_blob(SoftKernel(tmp_path, "caam"), digits)


def test_call_numbers_are_those_of_the_program_and_not_of_the_kernel() -> None:
    """A 32-bit image on a 64-bit kernel speaks ARM's numbers."""
    assert find_calls("aarch64", 8) == (217, 219)
    assert find_calls("aarch64", 4) == find_calls("armv7l", 4) == (309, 311)
    assert find_calls("x86_64", 8) == (248, 250)
    assert find_calls("mips", 4) is None
    assert find_calls(platform.machine(), 8) is not None


def test_sources_have_the_numbers_of_blobs_in_the_field() -> None:
    assert {source.word: source.value for source in Source} == {"caam": 1, "tee": 2, "tpm": 3, "dcp": 4}
