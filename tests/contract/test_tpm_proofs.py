"""ports.Activator and ports.KeyProver: what a TPM adds, against the issuer's half and the TSS's."""

import secrets
from collections.abc import Callable
from importlib import import_module

import pytest

from mpagent.errors import NotMine
from mpagent.hal import ports
from mpwire import p256, tpm2
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret
from tests.contract.rigs import Rig

MakeCredential = Callable[[bytes, bytes, bytes], tuple[bytes, bytes]]
QUALIFYING = bytes(range(32))


@pytest.fixture
def tpm_rig(make_board_of: Callable[[str], Rig]) -> Rig:
    """A board with a TPM that also holds the device keys."""
    return make_board_of("tpm")


@pytest.fixture(params=["tss", pytest.param("mpissuer", marks=pytest.mark.ceiling)])
def make_credential(request: pytest.FixtureRequest) -> MakeCredential:
    """TPM2_MakeCredential by our issuer, and by the TSS as the reference. The floor has no server installed."""
    if request.param == "mpissuer":
        made: MakeCredential = import_module("mpissuer.credential").make_credential
        return made
    tss = import_module("tpm2_pytss")

    def make(ek_public: bytes, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
        public, _ = tss.TPMT_PUBLIC.unmarshal(ek_public)
        blob, encrypted = import_module("tpm2_pytss.utils").make_credential(public, secret, ak_name)
        return bytes(blob), bytes(encrypted)

    return make


def parts_of(board: ports.Board) -> tuple[ports.AttesterMaterial, bytes, ports.Activator]:
    material = board.attester.describe()
    assert material.ek_public is not None and board.activator is not None
    return material, material.ek_public, board.activator


def test_credential_for_this_ek_and_ak_opens(tpm_rig: Rig, make_credential: MakeCredential) -> None:
    secret = secrets.token_bytes(32)
    with tpm_rig.open() as board:
        material, ek_public, activator = parts_of(board)
        blob, encrypted = make_credential(ek_public, material.attester_id[34:], secret)
        assert activator.activate(blob, encrypted) == Secret(secret)
    tpm_rig.power_cycle()
    with tpm_rig.open() as board:
        assert parts_of(board)[2].activate(blob, encrypted) == Secret(secret)


def test_credential_for_another_ak_stays_shut(tpm_rig: Rig, make_credential: MakeCredential) -> None:
    """A genuine TPM's EK beside a software AK: the way to pass off a quote of one's own."""
    with tpm_rig.open() as board:
        material, ek_public, activator = parts_of(board)
        other_name = material.attester_id[34:-1] + bytes([material.attester_id[-1] ^ 1])
        blob, encrypted = make_credential(ek_public, other_name, QUALIFYING)
        with pytest.raises(NotMine):
            activator.activate(blob, encrypted)


def test_credential_for_another_ek_stays_shut(
    tpm_rig: Rig, make_board_of: Callable[[str], Rig], make_credential: MakeCredential
) -> None:
    with tpm_rig.open() as board, make_board_of("tpm").open() as other:
        material, _, activator = parts_of(board)
        _, foreign_ek, _ = parts_of(other)
        blob, encrypted = make_credential(foreign_ek, material.attester_id[34:], QUALIFYING)
        with pytest.raises(NotMine):
            activator.activate(blob, encrypted)


def test_damaged_credential_stays_shut_and_harms_nothing(tpm_rig: Rig, make_credential: MakeCredential) -> None:
    with tpm_rig.open() as board:
        material, ek_public, activator = parts_of(board)
        blob, encrypted = make_credential(ek_public, material.attester_id[34:], QUALIFYING)
        for damaged in (
            b"",
            blob[:-1],
            blob + b"\0",
            bytes([blob[0] ^ 1]) + blob[1:],
            blob[:-1] + bytes([blob[-1] ^ 1]),
        ):
            with pytest.raises((NotMine, Malformed)):
                activator.activate(damaged, encrypted)
        for damaged in (b"", encrypted[:-1], encrypted + b"\0", bytes(len(encrypted)), bytes(4096)):
            with pytest.raises((NotMine, Malformed)):
                activator.activate(blob, damaged)
        assert activator.activate(blob, encrypted) == Secret(QUALIFYING)


def test_credential_of_another_size_is_refused(tpm_rig: Rig, make_credential: MakeCredential) -> None:
    with tpm_rig.open() as board:
        material, ek_public, activator = parts_of(board)
        blob, encrypted = make_credential(ek_public, material.attester_id[34:], b"short")
        with pytest.raises(Malformed):
            activator.activate(blob, encrypted)


@pytest.mark.parametrize("label", ["sign", "kem"])
def test_device_key_is_proven_by_the_ak(tpm_rig: Rig, label: str) -> None:
    with tpm_rig.open() as board:
        assert board.key_prover is not None
        material, point = board.attester.describe(), board.keyring.find_or_make(label).public_key()
        proof = board.key_prover.prove(label, QUALIFYING)
    assert material.ak_public is not None
    ak = tpm2.read_public(material.ak_public).unique
    assert tpm2.verify_certify(proof.attest, proof.signature, ak, QUALIFYING, proof.public).unique == point
    with pytest.raises(Unauthentic):
        tpm2.verify_certify(proof.attest, proof.signature, ak, bytes(32), proof.public)
    with pytest.raises(Unauthentic):
        stranger = p256.SoftKey.generate().public_key()
        tpm2.verify_certify(proof.attest, proof.signature, stranger, QUALIFYING, proof.public)


def test_proof_makes_the_key_that_the_keyring_then_gives(tpm_rig: Rig) -> None:
    with tpm_rig.open() as board:
        assert board.key_prover is not None
        public = board.key_prover.prove("sign", QUALIFYING).public
    with tpm_rig.open() as board:
        assert tpm2.read_public(public).unique == board.keyring.find_or_make("sign").public_key()


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_qualifying_data_has_one_size(tpm_rig: Rig, size: int) -> None:
    with tpm_rig.open() as board:
        assert board.key_prover is not None
        with pytest.raises(Malformed):
            board.key_prover.prove("sign", bytes(size))


def test_board_without_a_tpm_attester_offers_no_tpm_proofs(make_board_of: Callable[[str], Rig]) -> None:
    """What a board lacks is absent: a stub would be asked."""
    with make_board_of("sim").open() as board:
        assert board.activator is None
        assert board.key_prover is None
    with make_board_of("tpm-with-sealed-keys").open() as board:
        assert board.activator is not None
        assert board.key_prover is None
