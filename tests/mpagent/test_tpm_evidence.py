"""What a TPM board shows and what an attacker beside it can do: EK certificate, planted keys, a probe on the bus."""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpagent.errors import NotMine, Tampered
from mpagent.hal.tpm import endorsement, open_tpm, templates
from mpagent.hal.tpm.attest import AK_NAME, TpmActivator, TpmAttester
from mpagent.hal.tpm.blobs import WrappedObject, read
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.keys import TpmKeyring
from mpagent.hal.tpm.seal import TpmSealer
from mpsim.ek_authority import EkAuthority
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import p256, tpm2
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


@pytest.fixture
def probe(tpm: SoftTpm) -> Iterator[tuple[Chip, bytearray]]:
    """A chip whose bus somebody listens to, and all that went over it."""
    tss = import_module("tpm2_pytss")
    heard = bytearray()

    class ListeningTcti(tss.PyTCTI):  # type: ignore[name-defined,misc]  # tpm2-pytss publishes no types
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def do_transmit(self, command: bytes) -> None:
            heard.extend(command)
            self.inner.transmit(command)

        def do_receive(self, timeout: int) -> bytes:
            answer = bytes(self.inner.receive())
            heard.extend(answer)
            return answer

    chip = Chip(tss, tss.ESAPI(ListeningTcti(tss.TCTILdr.parse(tpm.tcti))))
    yield chip, heard
    chip.close()


def test_probe_on_the_bus_hears_no_sealed_key(probe: tuple[Chip, bytearray]) -> None:
    chip, heard = probe
    sealer = TpmSealer(chip)
    assert sealer.unseal(sealer.seal(DEK)) == DEK
    assert len(heard) > 1000
    assert DEK.reveal() not in heard


def test_probe_on_the_bus_hears_no_shared_secret(probe: tuple[Chip, bytearray]) -> None:
    """With the X coordinate it could open the Grant."""
    chip, heard = probe
    key, peer = TpmKeyring(chip, MemoryShelf()).find_or_make("kem"), p256.SoftKey.generate()
    shared = key.ecdh(peer.public_key())
    assert peer.public_key()[1:33] in heard
    assert shared.reveal() not in heard


def test_probe_on_the_bus_hears_no_activated_secret(probe: tuple[Chip, bytearray]) -> None:
    chip, heard = probe
    attester = TpmAttester(chip, MemoryShelf())
    material = attester.describe()
    public, _ = chip.tss.TPMT_PUBLIC.unmarshal(material.ek_public)
    make = import_module("tpm2_pytss.utils").make_credential
    blob, encrypted = make(public, DEK.reveal(), material.attester_id[34:])
    assert TpmActivator(chip, attester).activate(bytes(blob), bytes(encrypted)) == DEK
    assert DEK.reveal() not in heard
