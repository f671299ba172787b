"""What the TPM measured, and the policy that lets a sealed key open only where the OEM approved it (docs/wire.md 5.4).

A sealed key never names a PCR value: it names the OEM's key. So an image that measures otherwise opens what an older
one sealed as soon as an approval for it lies beside it, and one without an approval opens nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from mpagent.errors import ConfigWrong, HardwareBusy, HardwareGone, PcrsMoved
from mpagent.hal.tpm import faults
from mpagent.hal.tpm.chip import Chip
from mpwire import p256, pcr_policy, tpm2
from mpwire.errors import Malformed, MpError, Unauthentic
from mpwire.messages.issuer import PcrApproval

APPROVALS_MAX: Final = 64
"""Files in one image: board variants times loader versions, with room."""
_PAGE_PCRS: Final = 8
"""Most digests of one TPM2_PCR_Read (TPML_DIGEST; TPM 2.0 Library, Part 2, section 10.9.4)."""


class PcrBinding(NamedTuple):
    """What the image says of PCRs. Only whoever builds the image says it; there is no binding to bare values."""

    authority: bytes
    """Point of the OEM's PCR authority, 65 bytes."""
    pcrs: tuple[int, ...]
    """Rising; every approval is for exactly these."""
    realm: str
    product: str
    approvals: Path
    """Folder with one approval in each file."""


def read_pcrs(chip: Chip, indices: Sequence[int]) -> list[bytes]:
    """Values of the SHA-256 bank. Raises HardwareGone where the bank is off."""
    values: list[bytes] = []
    for first in range(0, len(indices), _PAGE_PCRS):
        page = indices[first : first + _PAGE_PCRS]
        values += _read_page(chip, write_selection(page))
    if len(values) != len(indices):
        raise HardwareGone("the TPM's SHA-256 PCR bank is off: switch it on in the firmware")
    return values


def write_selection(indices: Sequence[int]) -> str:
    """As tpm2-pytss spells a TPML_PCR_SELECTION."""
    return "sha256:" + ",".join(map(str, indices))


def _read_page(chip: Chip, selection: str) -> list[bytes]:
    _, _, digests = chip.run("reading PCRs", lambda esapi: esapi.pcr_read(selection))
    return [bytes(digest) for digest in digests]


class PcrPolicy:
    """The policy of one image: its authPolicy, and sessions that fulfil it where an approval fits."""

    def __init__(self, chip: Chip, binding: PcrBinding) -> None:
        self._chip = chip
        self._binding = binding
        self._reference = pcr_policy.make_reference(binding.realm, binding.product)
        self._authority = pcr_policy.write_authority(binding.authority)
        self.digest: Final = pcr_policy.seal_policy(binding.authority, self._reference)
        """authPolicy of what is sealed under it, 32 bytes."""

    def find_fitting(self) -> PcrApproval:
        """The approval for what runs now. Raises PcrsMoved, and ConfigWrong for a file that is no approval of ours."""
        approvals, indices = self._read_approvals(), self._binding.pcrs
        measured = dict(zip(indices, read_pcrs(self._chip, indices), strict=True))
        for approval in approvals.values():
            if dict(approval.pcrs) == measured:
                return approval
        raise _explain_moved(self._binding, approvals, measured)

    def prove(self, approval: PcrApproval) -> Any:
        """TPMT_TK_VERIFIED: the TPM's own word that the authority signed. Leaves nothing loaded."""
        chip, tss = self._chip, self._chip.tss
        area, _ = tss.TPMT_PUBLIC.unmarshal(self._authority)
        # In the owner hierarchy: the ticket for a key of the null hierarchy is empty, and no use to PolicyAuthorize.
        key = chip.run(
            "loading the PCR authority",
            lambda esapi: esapi.load_external(tss.TPM2B_PUBLIC(publicArea=area), hierarchy=tss.ESYS_TR.OWNER),
        )
        with chip.holding(key):
            digest = sha256(pcr_policy.statement(approval)).digest()
            signature = _write_signature(tss, approval.signature)
            return chip.run("checking an approval", lambda esapi: esapi.verify_signature(key, digest, signature))

    @contextmanager
    def authorised(self, approval: PcrApproval, ticket: Any) -> Iterator[Any]:
        """A policy session that opens what was sealed under `digest`; `ticket` is of `prove`."""
        chip, selection = self._chip, write_selection(self._binding.pcrs)
        approved, name = pcr_policy.pcr_policy(approval.pcrs), tpm2.make_name(self._authority)
        with chip.policy_session() as session:
            chip.run("looking at PCRs", lambda esapi: esapi.policy_pcr(session, b"", selection))
            chip.run(
                "fulfilling the PCR policy",
                lambda esapi: esapi.policy_authorize(
                    session, approved, policy_ref=self._reference, key_sign=name, check_ticket=ticket
                ),
                _moved_meanwhile,
            )
            yield session

    def _read_approvals(self) -> Mapping[str, PcrApproval]:
        """Every approval in the folder by file name, each checked. An image without the folder has none."""
        try:
            files = sorted(self._binding.approvals.iterdir())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigWrong(f"cannot read {self._binding.approvals}: {error.strerror}") from error
        if len(files) > APPROVALS_MAX:
            raise ConfigWrong(f"{self._binding.approvals} holds more than {APPROVALS_MAX} files")
        return {file.name: self._read_approval(file) for file in files}

    def _read_approval(self, file: Path) -> PcrApproval:
        """Everything in the folder is the image's: what is not an approval for it is a mistake in its build."""
        binding = self._binding
        try:
            with file.open("rb") as opened:
                approval = pcr_policy.read_approval(opened.read(pcr_policy.APPROVAL_MAX_BYTES + 1))
            pcr_policy.verify_approval(approval, binding.authority)
        except OSError as error:
            raise ConfigWrong(f"cannot read {file}: {error.strerror}") from error
        except Malformed as error:
            raise ConfigWrong(f"{file} is no PCR approval: {error}") from error
        except Unauthentic as error:
            raise ConfigWrong(f"{file} is not signed by the PCR authority of this image", detail=str(error)) from error
        if (approval.realm, approval.product) != (binding.realm, binding.product):
            raise ConfigWrong(f"{file} approves for product {approval.product}, realm {approval.realm}: not this one")
        approved = tuple(index for index, _ in approval.pcrs)
        if approved != binding.pcrs:
            raise ConfigWrong(f"{file} approves PCRs {_list(approved)}, and this image binds to {_list(binding.pcrs)}")
        return approval


def _explain_moved(
    binding: PcrBinding, approvals: Mapping[str, PcrApproval], measured: Mapping[int, bytes]
) -> PcrsMoved:
    """Which PCRs differ from the approval that fits best."""
    detail = "measured " + ", ".join(f"{index}={value.hex()}" for index, value in measured.items())
    if not approvals:
        bound = _list(binding.pcrs)
        return PcrsMoved(f"{binding.approvals} holds no approval of what PCRs {bound} measured", detail=detail)
    differing = {
        name: tuple(index for index, value in approval.pcrs if measured[index] != value)
        for name, approval in approvals.items()
    }
    nearest = min(differing, key=lambda name: len(differing[name]))
    among = f"{len(approvals)} approvals, nearest {nearest}" if len(approvals) > 1 else nearest
    return PcrsMoved(f"PCRs {_list(differing[nearest])} differ from what the OEM approved ({among})", detail=detail)


def _list(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices))


def _write_signature(tss: Any, raw: bytes) -> Any:
    """TPMT_SIGNATURE by ECDSA with SHA-256."""
    signature = tss.TPMT_SIGNATURE(sigAlg=tss.TPM2_ALG.ECDSA)
    signature.signature.ecdsa.hash = tss.TPM2_ALG.SHA256
    signature.signature.ecdsa.signatureR = raw[: p256.SCALAR_BYTES]
    signature.signature.ecdsa.signatureS = raw[p256.SCALAR_BYTES :]
    return signature


def _moved_meanwhile(code: int) -> MpError | None:
    """The PCRs fitted a moment ago: something extended one since."""
    return HardwareBusy("PCRs change while a key is opened: try again") if code == faults.VALUE else None
