"""Keys sealed for approved software: what opens them, what does not, and whose word the TPM itself takes."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mpagent.advice import say
from mpagent.errors import ConfigWrong, HardwareBusy, HardwareGone, NotMine, PcrsMoved
from mpagent.hal.tpm import PcrBinding, blobs, open_tpm
from mpagent.hal.tpm.chip import Chip, Meaning, open_chip
from mpagent.hal.tpm.pcrs import APPROVALS_MAX, PcrPolicy, read_pcrs
from mpagent.hal.tpm.seal import TpmSealer
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import pcr_policy, tpm2
from mpwire.errors import Retry
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from tests.mpagent.measured import LOADER, PCRS, PRODUCT, REALM, STATE, MeasuredBoard, value_of, values_of

DEK = Secret(sha256(b"sealed for approved software").digest())


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


@pytest.fixture
def board(tpm: SoftTpm, tmp_path: Path) -> MeasuredBoard:
    """Booted with approved software."""
    made = MeasuredBoard(tpm, tmp_path / "pcrs")
    made.boot("loader 1")
    made.approve("loader 1")
    return made


@pytest.fixture
def blob(board: MeasuredBoard) -> bytes:
    """Sealed under the policy."""
    with board.open() as parts:
        return parts.sealer.seal(DEK)


def unseal(board: MeasuredBoard, blob: bytes) -> Secret:
    with board.open() as parts:
        return parts.sealer.unseal(blob)


def list_loaded(tpm: SoftTpm) -> list[str]:
    kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
    return [line for kind in kinds for line in tpm.use_tool("tpm2_getcap", kind).decode().split("\n") if line.strip()]


def test_approved_software_opens_it_at_every_boot(board: MeasuredBoard, blob: bytes) -> None:
    assert unseal(board, blob) == DEK
    board.boot("loader 1")
    assert unseal(board, blob) == DEK
    assert list_loaded(board.tpm) == []


def test_other_software_opens_nothing_and_is_named_and_the_right_one_still_does(
    board: MeasuredBoard, blob: bytes
) -> None:
    """T-280 Other software: a changed boot loader on the right chip; nothing is latched, for an image is no damage."""
    board.boot("loader of somebody else")
    with pytest.raises(PcrsMoved, match=rf"PCRs {LOADER} differ from what the OEM approved \(image\)") as moved:
        unseal(board, blob)
    assert (moved.value.exit_code, moved.value.retry) == (77, Retry.OPERATOR)
    assert f"{LOADER}={value_of('loader of somebody else').hex()}" in moved.value.detail
    assert "mpserver tpm authorize-pcrs" in say(moved.value)
    assert list_loaded(board.tpm) == []

    board.boot("loader 1")
    assert unseal(board, blob) == DEK


def test_next_image_with_its_approval_opens_what_the_last_one_sealed(board: MeasuredBoard, blob: bytes) -> None:
    """That is why a key names the OEM and no PCR value: with bare values every update would lose the secrets."""
    board.boot("loader 2")
    board.approve("loader 2", "next")
    assert unseal(board, blob) == DEK
    (board.approvals / "image").unlink()
    assert unseal(board, blob) == DEK


def test_withdrawn_image_that_boots_with_its_approval_still_opens(board: MeasuredBoard, blob: bytes) -> None:
    """Said in docs/wire.md 5.4, and a residual risk: an approval has no end. Without its approval it opens nothing."""
    old = (board.approvals / "image").read_bytes()
    board.boot("loader 1")
    (board.approvals / "image").unlink()
    board.approve("loader 2", "next")
    with pytest.raises(PcrsMoved):
        unseal(board, blob)
    board.put("image", old)
    assert unseal(board, blob) == DEK


def test_the_nearest_of_several_approvals_is_named(board: MeasuredBoard, blob: bytes) -> None:
    board.approve("loader 2", "next", state="secure boot off")
    board.boot("loader 3")
    with pytest.raises(PcrsMoved, match=rf"PCRs {LOADER} differ .* \(2 approvals, nearest image\)"):
        unseal(board, blob)
    board.boot("loader 3", "debug")
    with pytest.raises(PcrsMoved, match=rf"PCRs {LOADER}, {STATE} differ"):
        unseal(board, blob)


def test_nothing_is_sealed_that_could_not_be_opened(board: MeasuredBoard) -> None:
    """Found before secrets are asked for, and not at the next boot."""
    board.boot("loader 2")
    with board.open() as parts, pytest.raises(PcrsMoved, match="differ"):
        parts.sealer.seal(DEK)
    for one in board.approvals.iterdir():
        one.unlink()
    with board.open() as parts, pytest.raises(PcrsMoved, match="holds no approval of what PCRs 4, 7 measured"):
        parts.sealer.seal(DEK)
    board.approvals.rmdir()
    with board.open() as parts, pytest.raises(PcrsMoved, match="holds no approval"):
        parts.sealer.seal(DEK)


def test_no_password_and_no_bare_pcr_value_opens_it(board: MeasuredBoard, blob: bytes) -> None:
    """T-280 Other software: with the approved PCR values, but without the OEM's word for them, the TPM refuses."""
    wrapped = blobs.read(blob)
    assert wrapped is not None
    with board.open() as parts:
        chip = parts.chip
        with chip.loaded(wrapped, "loading") as item:
            with pytest.raises(HardwareGone):
                chip.run("unsealing", lambda esapi: esapi.unseal(item))
            with chip.policy_session() as session:
                chip.run("looking", lambda esapi: esapi.policy_pcr(session, b"", "sha256:4,7"))
                with pytest.raises(HardwareGone, match="0x09d"):
                    chip.run("unsealing", lambda esapi: esapi.unseal(item, session1=session))


def forge(board: MeasuredBoard, **changes: Any) -> bytes:
    """An approval for what runs, by somebody else or for something else."""
    said: dict[str, Any] = {"realm": REALM, "product": PRODUCT, "pcrs": values_of("evil"), "sign": board.oem.sign}
    said.update(changes)
    return pcr_policy.write_approval(said["realm"], said["product"], said["pcrs"], said["sign"])


FORGERIES: dict[str, tuple[Callable[[MeasuredBoard], bytes], str]] = {
    "another key": (lambda board: forge(board, sign=SoftKey.generate().sign), "not signed by the PCR authority"),
    "another product": (lambda board: forge(board, product="toaster"), "for product toaster"),
    "another realm": (lambda board: forge(board, realm="production"), "realm production"),
    "fewer PCRs": (lambda board: forge(board, pcrs=values_of("evil")[1:]), "approves PCRs 7, and .* binds to 4, 7"),
    "other PCRs": (lambda board: forge(board, pcrs=((0, value_of("x")), (7, value_of("y")))), "approves PCRs 0, 7"),
    "garbage": (lambda _: b"\xff" * 200, "is no PCR approval"),
    "nothing": (lambda _: b"", "is no PCR approval"),
    "too much": (lambda board: board.approve("evil", "scratch") + bytes(4096), "is no PCR approval"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_approval_is_named_and_opens_nothing(board: MeasuredBoard, blob: bytes, forgery: str) -> None:
    """T-281 Forged approval: by another key, or the OEM's for another product, realm or set of PCRs."""
    make, says = FORGERIES[forgery]
    raw = make(board)
    (board.approvals / "scratch").unlink(missing_ok=True)
    board.boot("evil")
    board.put("forged", raw)
    with pytest.raises(ConfigWrong, match=says) as wrong:
        unseal(board, blob)
    assert "forged" in str(wrong.value)
    (board.approvals / "forged").unlink()
    board.boot("loader 1")
    assert unseal(board, blob) == DEK


@pytest.mark.parametrize("forgery", ["another key", "another product", "another realm", "other PCRs"])
def test_tpm_itself_refuses_a_forged_approval(board: MeasuredBoard, blob: bytes, forgery: str) -> None:
    """T-281 Forged approval: whoever runs other software runs another agent, so its checks protect nothing."""
    wrapped, approval = blobs.read(blob), pcr_policy.read_approval(FORGERIES[forgery][0](board))
    assert wrapped is not None
    board.boot("evil")
    chosen = tuple(index for index, _ in approval.pcrs)
    binding = board.binding()._replace(pcrs=chosen)
    with board.open() as parts:
        policy = PcrPolicy(parts.chip, binding)
        with pytest.raises((HardwareGone, HardwareBusy)):
            ticket = policy.prove(approval)
            with parts.chip.loaded(wrapped, "loading") as item, policy.authorised(approval, ticket) as session:
                parts.chip.run("unsealing", lambda esapi: esapi.unseal(item, session1=session))
    assert list_loaded(board.tpm) == []


def test_ticket_of_another_tpm_is_refused(board: MeasuredBoard, blob: bytes, tmp_path: Path) -> None:
    """T-281 Forged approval: a TPM that its thief owns says that the OEM signed."""
    approval = pcr_policy.read_approval(board.approve("loader 1"))
    with SoftTpm(tmp_path / "other") as other, open_tpm(other.tcti, MemoryShelf()) as parts:
        thief = SoftKey.generate()
        forged = approval._replace(signature=thief.sign(pcr_policy.statement(approval)))
        ticket = PcrPolicy(parts.chip, board.binding()._replace(authority=thief.public_key())).prove(forged)
    with board.open() as parts:
        policy = PcrPolicy(parts.chip, board.binding())
        with pytest.raises((HardwareGone, HardwareBusy)), policy.authorised(approval, ticket):
            pass


def test_key_sealed_before_the_image_asked_for_a_policy_still_opens(board: MeasuredBoard) -> None:
    with open_tpm(board.tpm.tcti, MemoryShelf()) as parts:
        before = parts.sealer.seal(DEK)
    board.boot("anything")
    assert unseal(board, before) == DEK


def test_image_that_names_no_or_another_authority_says_so(board: MeasuredBoard, blob: bytes) -> None:
    with open_tpm(board.tpm.tcti, MemoryShelf()) as parts, pytest.raises(PcrsMoved, match="authority"):
        parts.sealer.unseal(blob)
    board.oem = SoftKey.generate()
    board.approve("loader 1")
    with board.open() as parts, pytest.raises(PcrsMoved, match="authority that this image does not name"):
        parts.sealer.unseal(blob)


def test_policy_rewritten_on_disk_is_damage_and_not_another_image(board: MeasuredBoard, blob: bytes) -> None:
    """T-283 Edited blob: the thief puts his own authority's policy into the public area."""
    thief = pcr_policy.seal_policy(SoftKey.generate().public_key(), pcr_policy.make_reference(REALM, PRODUCT))
    wrapped = blobs.read(blob)
    assert wrapped is not None
    edited = wrapped._replace(public=wrapped.public[:10] + thief + wrapped.public[42:])
    with board.open() as parts, pytest.raises(NotMine, match="damaged"):
        parts.sealer.unseal(edited.write())
    assert unseal(board, blob) == DEK


class BootingChip(Chip):
    """A board whose boot goes on: a bound PCR is extended once, right before the step named."""

    before = ""

    def run(self, doing: str, verb: Callable[[Any], Any], *meaning: Meaning) -> Any:
        if doing == self.before:
            self.before = ""
            digests = self.tss.TPML_DIGEST_VALUES()
            digests.count, digests.digests[0].hashAlg = 1, self.tss.TPM2_ALG.SHA256
            digests.digests[0].digest.sha256 = sha256(b"event").digest()
            super().run("extending", lambda esapi: esapi.pcr_extend(self.tss.ESYS_TR.PCR4, digests))
        return super().run(doing, verb, *meaning)


@pytest.mark.parametrize("before", ["checking an approval", "looking at PCRs", "unsealing"])
def test_pcr_that_moves_between_look_and_use_is_busy_then_moved(board: MeasuredBoard, blob: bytes, before: str) -> None:
    opened = open_chip(board.tpm.tcti)
    opened.close()
    chip = BootingChip(opened.tss, opened.tss.ESAPI(board.tpm.tcti))
    sealer = TpmSealer(chip, PcrPolicy(chip, board.binding()))
    chip.before = before
    with pytest.raises(HardwareBusy):
        sealer.unseal(blob)
    with pytest.raises(PcrsMoved, match=rf"PCRs {LOADER}"):
        sealer.unseal(blob)
    chip.close()
    assert list_loaded(board.tpm) == []


def test_more_files_than_an_image_has_are_refused_before_they_are_read(board: MeasuredBoard) -> None:
    for place in range(APPROVALS_MAX):
        board.put(f"more-{place}", b"")
    with board.open() as parts, pytest.raises(ConfigWrong, match=f"more than {APPROVALS_MAX} files"):
        parts.sealer.seal(DEK)


def test_folder_and_file_that_cannot_be_read_are_named(board: MeasuredBoard, tmp_path: Path) -> None:
    (board.approvals / "folder").mkdir()
    with board.open() as parts, pytest.raises(ConfigWrong, match=r"cannot read .*folder: Is a directory"):
        parts.sealer.seal(DEK)
    (tmp_path / "file").write_bytes(b"")
    binding = board.binding()._replace(approvals=tmp_path / "file")
    with (
        open_tpm(board.tpm.tcti, MemoryShelf(), binding) as parts,
        pytest.raises(ConfigWrong, match=r"cannot read .*file: Not a directory"),
    ):
        parts.sealer.seal(DEK)


def test_all_sixteen_pcrs_can_be_bound(tpm: SoftTpm, tmp_path: Path) -> None:
    """A TPM returns eight at a time."""
    oem, every, folder = SoftKey.generate(), tuple(range(16)), tmp_path / "pcrs"
    folder.mkdir()
    binding = PcrBinding(oem.public_key(), every, REALM, PRODUCT, folder)
    for index in every:
        tpm.use_tool("tpm2_pcrextend", f"{index}:sha256={sha256(bytes([index])).hexdigest()}")
    with open_tpm(tpm.tcti, MemoryShelf(), binding) as parts:
        values = read_pcrs(parts.chip, every)
        assert len(set(values)) == 16
        approved = pcr_policy.write_approval(REALM, PRODUCT, list(zip(every, values, strict=True)), oem.sign)
        (folder / "all").write_bytes(approved)
        assert parts.sealer.unseal(parts.sealer.seal(DEK)) == DEK


def test_digests_are_those_of_tpm2_tools(tpm: SoftTpm, tmp_path: Path) -> None:
    """Made by another's software from the same words: the Name, TPM2_PolicyPCR and TPM2_PolicyAuthorize."""
    point, reference = SoftKey.generate().public_key(), pcr_policy.make_reference(REALM, PRODUCT)
    area = pcr_policy.write_authority(point)
    names = ("public", "reference", "name", "pcr", "auth", "session")
    public, given, name, pcr, auth, session = (tmp_path / f"oracle-{one}" for one in names)
    public.write_bytes(len(area).to_bytes(2, "big") + area)
    given.write_bytes(reference)
    tpm.use_tool("tpm2_loadexternal", "-C", "o", "-u", str(public), "-c", str(tmp_path / "key"), "-n", str(name))
    tpm.use_tool("tpm2_flushcontext", "-t")
    assert name.read_bytes() == tpm2.make_name(area)
    for index in PCRS:
        tpm.use_tool("tpm2_pcrextend", f"{index}:sha256={sha256(b'measured').hexdigest()}")
    tpm.use_tool("tpm2_startauthsession", "-S", str(session))
    tpm.use_tool("tpm2_policypcr", "-S", str(session), "-l", "sha256:4,7", "-L", str(pcr))
    words = ["-S", str(session), "-i", str(pcr), "-q", str(given), "-n", str(name), "-L", str(auth)]
    tpm.use_tool("tpm2_policyauthorize", *words)
    tpm.use_tool("tpm2_flushcontext", str(session))
    assert pcr.read_bytes() == pcr_policy.pcr_policy([(index, value_of("measured")) for index in PCRS])
    assert auth.read_bytes() == pcr_policy.seal_policy(point, reference)
