"""What a TPM board shows and what an attacker beside it can do: EK certificate, planted keys, a probe on the bus."""

import hashlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpagent.errors import HardwareGone, NotMine, Tampered
from mpagent.hal.tpm import endorsement, open_tpm, templates
from mpagent.hal.tpm.attest import AK_NAME
from mpagent.hal.tpm.blobs import WrappedObject, read
from mpagent.hal.tpm.chip import Chip, Meaning
from mpsim.ek_authority import EkAuthority
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import tpm2
from mpwire.secret import Secret

DEK = Secret(hashlib.sha256(b"a key that a probe must not see").digest())


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


def test_ek_is_the_one_its_maker_certified(tpm: SoftTpm) -> None:
    """The certificate is made from the EK of tpm2-tools' own template: ours must give the same key."""
    authority = EkAuthority()
    der = tpm.install_ek_certificate(authority)
    tpm.power_cycle()
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        material = parts.attester.describe()
    assert material.ek_certificate == der
    certificate = x509.load_der_x509_certificate(der)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.root_der()))
    point = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert tpm2.read_public(material.ek_public or b"").unique == point


def test_tpm_without_a_certificate_has_none(tpm: SoftTpm) -> None:
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert parts.attester.describe().ek_certificate is None


def test_index_that_was_never_written_is_no_certificate(tpm: SoftTpm) -> None:
    tpm.use_tool("tpm2_nvdefine", "0x01C0000A", "-C", "o", "-s", "600")
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert parts.attester.describe().ek_certificate is None


def test_padding_behind_a_certificate_is_cut(tpm: SoftTpm, tmp_path: Path) -> None:
    """Makers define an index of fixed size and fill up; strict DER readers then refuse a good certificate."""
    der = b"\x30\x82\x03\xe8" + bytes(range(250)) * 4
    content = tmp_path / "content"
    content.write_bytes(der + b"\xff" * 196)
    tpm.use_tool("tpm2_nvdefine", "0x01C0000A", "-C", "o", "-s", "1200")
    tpm.use_tool("tpm2_nvwrite", "0x01C0000A", "-C", "o", "-i", str(content))
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert parts.attester.describe().ek_certificate == der


def fill_index(tpm: SoftTpm, index: str, content: bytes) -> None:
    file = Path(f"{tpm.tcti.split('=')[1]}.content")
    file.write_bytes(content)
    tpm.use_tool("tpm2_nvdefine", index, "-C", "o", "-s", str(len(content)))
    tpm.use_tool("tpm2_nvwrite", index, "-C", "o", "-i", str(file))


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_blank_index_is_no_certificate(tpm: SoftTpm, filling: bytes) -> None:
    fill_index(tpm, "0x01C0000A", filling * 700)
    fill_index(tpm, "0x01C00002", filling * 700)
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        material = parts.attester.describe()
    assert material.ek_certificate is None and tpm2.read_public(material.ek_public or b"").is_ecc


@pytest.mark.parametrize("index", ["0x01C0000A", "0x01C00002"])
@pytest.mark.parametrize("content", [b"\x30\x82\x03\xe8" + bytes(500), b"-----BEGIN CERTIFICATE-----", b"\x01" * 700])
def test_index_that_holds_no_certificate_is_named(tpm: SoftTpm, index: str, content: bytes) -> None:
    """Never sent, and not taken for absent either: an RSA certificate beside it would make another board of it."""
    fill_index(tpm, index, content)
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        with pytest.raises(HardwareGone, match=f"{index} holds {len(content)} bytes that are no certificate") as gone:
            parts.attester.describe()
        assert "maker" in gone.value.advice


class HugeIndexChip(Chip):
    """A TPM whose indices are larger than swtpm lets anybody define."""

    def run(self, doing: str, verb: Callable[[Any], Any], *meaning: Meaning) -> Any:
        answer = super().run(doing, verb, *meaning)
        if isinstance(answer, tuple) and hasattr(answer[0], "nvPublic"):
            answer[0].nvPublic.dataSize = endorsement.CERTIFICATE_MAX_BYTES + 1
        assert not isinstance(answer, self.tss.TPM2B_MAX_NV_BUFFER), "it was read"
        return answer


@pytest.mark.parametrize("index", ["0x01C0000A", "0x01C00002"])
def test_oversized_index_is_named_and_not_read(tpm: SoftTpm, index: str) -> None:
    fill_index(tpm, index, b"\x30\x82\x01\xf4" + bytes(500))
    tss = import_module("tpm2_pytss")
    chip = HugeIndexChip(tss, tss.ESAPI(tpm.tcti))
    with pytest.raises(HardwareGone, match=f"{index} has {endorsement.CERTIFICATE_MAX_BYTES + 1} bytes"):
        endorsement.find_endorsement(chip)
    chip.close()


def test_p256_certificate_goes_before_the_rsa_one(tpm: SoftTpm) -> None:
    """Which EK a TPM shows is its identity: it must not depend on anything but what its maker wrote."""
    der = tpm.install_ek_certificate(EkAuthority())
    fill_index(tpm, "0x01C00002", b"\x30\x82\x01\xf4" + bytes(range(250)) * 2)
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        material = parts.attester.describe()
    assert material.ek_certificate == der and tpm2.read_public(material.ek_public or b"").is_ecc


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x30",
        b"\x30\x82",
        b"\xff" * 600,
        bytes(600),
        b"\x30\x82\x03\xe8" + bytes(999),
        b"\x30\x03abc",
        b"\x30\x84" + bytes(99),
    ],
)
def test_what_is_no_certificate_is_none(content: bytes) -> None:
    assert endorsement.cut_der(content) is None


def test_device_key_made_outside_and_planted_is_refused(tpm: SoftTpm, tmp_path: Path) -> None:
    """Root once, own for ever: import a known key under our SRK and put it where the device key lies."""
    shelf, name = MemoryShelf(), "tpm-key-sign"
    with open_tpm(tpm.tcti, shelf) as parts:
        parts.keyring.find_or_make("sign")
        ours = read(shelf.blobs[name])
        planted = import_known_key(parts.chip)
        with parts.chip.loaded(planted, "loading what was planted"):
            pass  # The TPM itself takes it: only we can tell.
    assert ours is not None and planted.parent_name == ours.parent_name
    shelf.blobs[name] = planted.write()
    with open_tpm(tpm.tcti, shelf) as parts, pytest.raises(Tampered, match="attributes differ"):
        parts.keyring.find_or_make("sign")
    assert shelf.blobs[name] == planted.write()


def import_known_key(chip: Chip) -> WrappedObject:
    """A key under the SRK that can leave the TPM, as TPM2_Import would also give: no fixedTPM, no fixedParent."""
    attributes = tpm2.Attributes.SENSITIVE_DATA_ORIGIN | tpm2.Attributes.USER_WITH_AUTH | tpm2.Attributes.NO_DA
    attributes |= tpm2.Attributes.SIGN | tpm2.Attributes.DECRYPT
    area = tpm2.write_public(tpm2.Public(attributes, b"\x04" + bytes(64)))
    return chip.make_child(templates.Template(area[:-68], area[-68:], 2), "planting")


def test_device_key_in_the_place_of_the_ak_is_refused(tpm: SoftTpm) -> None:
    """An unrestricted key signs a TPMS_ATTEST that somebody typed; a restricted one does not."""
    shelf = MemoryShelf()
    with open_tpm(tpm.tcti, shelf) as parts:
        parts.attester.describe()
        parts.keyring.find_or_make("sign")
    shelf.blobs[AK_NAME] = shelf.blobs["tpm-key-sign"]
    with open_tpm(tpm.tcti, shelf) as parts, pytest.raises(Tampered):
        parts.attester.attest(b"message")


def test_ak_of_a_cloned_disk_is_not_mine(tpm: SoftTpm, tmp_path: Path) -> None:
    shelf = MemoryShelf()
    with open_tpm(tpm.tcti, shelf) as parts:
        parts.attester.describe()
    before = dict(shelf.blobs)
    with SoftTpm(tmp_path / "other") as other, open_tpm(other.tcti, shelf) as parts:
        with pytest.raises(NotMine):
            parts.attester.describe()
        with pytest.raises(NotMine):
            parts.attester.attest(b"message")
    assert shelf.blobs == before


def test_cleared_tpm_disowns_what_it_made(tpm: SoftTpm) -> None:
    """The owner cleared it: keys and sealed data are gone for good, and the text says that this may be why."""
    shelf = MemoryShelf()
    with open_tpm(tpm.tcti, shelf) as parts:
        parts.keyring.find_or_make("sign")
        blob = parts.sealer.seal(DEK)
    tpm.use_tool("tpm2_clear", "-c", "p")
    with open_tpm(tpm.tcti, shelf) as parts:
        with pytest.raises(NotMine, match="cleared"):
            parts.keyring.find_or_make("sign")
        with pytest.raises(NotMine, match="cleared"):
            parts.sealer.unseal(blob)
