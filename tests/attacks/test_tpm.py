"""A TPM that is not listed, keys that are not in it, and quotes that say something else. Real TPM in software."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpagent.hal.ports import Board
from mpagent.hal.tpm import open_tpm
from mpagent.record import Stage
from mpsim.ek_authority import EkAuthority
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import labels, limits, registry, tpm2
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure
from mpwire.errors import PeerBroke
from mpwire.evidence import write_tpm_signature
from mpwire.messages.plain import CHALLENGE, HELLO, Credential, Hello, WireKeyAttestation, hash_key_attestation
from mpwire.p256 import SoftKey
from tests.attacks.conftest import Refuses
from tests.attacks.forge import (
    attest_honestly,
    begin_anew,
    bind,
    challenge_of,
    claiming,
    hello_of,
    prove,
    resign,
)
from tests.line import PRODUCT, Device, Factory, Oem, refusal_check

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    """One TPM for all attacks of this file."""
    with SoftTpm(tmp_path_factory.mktemp("tpm") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def ek_public(tpm: SoftTpm) -> bytes:
    """Its EK, as an OEM reads it at goods-in."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        public = parts.attester.describe().ek_public
    assert public is not None
    return public


@pytest.fixture
def oem(make_oem: MakeOem, ek_public: bytes) -> Oem:
    """An issuer that lists this TPM."""
    return make_oem(eks=(tpm2.make_name(ek_public),))


@pytest.fixture
def device(factory: Factory, tpm: SoftTpm) -> Device:
    """A board with this TPM."""
    return factory.tpm_board(tpm)


def test_tpm_that_is_not_listed_is_refused(make_oem: MakeOem, make_factory: MakeFactory, tpm: SoftTpm) -> None:
    """T-90 Foreign TPM: genuine, but nobody imported its EK and it shows no certificate."""
    oem = make_oem()
    proof = prove(make_factory(oem).tpm_board(tpm))
    before = oem.state()

    assert refusal_check(oem.hear(proof)) == "ek"

    assert oem.state() == before


def certify_ek(ek: bytes, signer: ec.EllipticCurvePrivateKey, *, days: int = 36_500) -> bytes:
    """An EK certificate of a maker called like the pinned one."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Simulated TPM maker root")])
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), tpm2.read_public(ek).unique)
    born = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, x509.Name([]), point, 7, born, born + timedelta(days=days))
    return builder.sign(signer, hashes.SHA256()).public_bytes(DER)


def pin(authority: EkAuthority) -> str:
    """The product with this maker's root."""
    pem = x509.load_der_x509_certificate(authority.root_der()).public_bytes(PEM).decode()
    return f'ek_roots = ["""\n{pem}"""]\n' + PRODUCT


def certificate_of(authority: EkAuthority, ek: bytes) -> bytes:
    """The maker's own certificate for this EK."""
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), tpm2.read_public(ek).unique)
    return authority.certify(point.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def test_ek_certificate_of_another_maker_is_refused(
    make_oem: MakeOem, make_factory: MakeFactory, tpm: SoftTpm, ek_public: bytes
) -> None:
    """T-91 Made-up maker: the right name and another key, ended or not; a certificate for another EK; none at all."""
    maker = EkAuthority()
    oem = make_oem(product=pin(maker).replace('grades = ["L"]', 'grades = ["K"]'))
    device = make_factory(oem).tpm_board(tpm)
    proof = prove(device)
    hello = hello_of(proof)
    stranger = ec.generate_private_key(ec.SECP256R1())
    right = certificate_of(maker, ek_public)
    before = oem.state()

    for wrong in (
        certify_ek(ek_public, stranger),
        certify_ek(ek_public, stranger, days=1),
        maker.certify(stranger.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)),
        certificate_of(EkAuthority(), ek_public),
        b"\x30\x03abc",
    ):
        said = hello._replace(attester=hello.attester._replace(ek_certificate=wrong))
        assert refusal_check(oem.hear(anew(device, proof, said))) == "ek"
    assert oem.state() == before

    said = hello._replace(attester=hello.attester._replace(ek_certificate=right))
    assert oem.hear(anew(device, proof, said))[:1] == b"\xd2"


def anew(device: Device, proof: bytes, hello: Hello, **how: Any) -> bytes:
    """A whole exchange over another Hello, with key attestations for its nonce."""
    raw = HELLO.encode(hello)
    challenge = device.line.oem.hear(raw)
    nonce = CHALLENGE.decode(challenge, limits.CHALLENGE_MAX_BYTES).nonce
    made = attest_keys(device, nonce)
    bound = bind(raw, challenge)
    hashed = claiming(key_attestation_hashes={label: hash_key_attestation(one) for label, one in made.items()})
    return resign(
        device,
        proof,
        lambda claims: hashed(bound(claims)),
        hello=raw,
        challenge=challenge,
        key_attestations=made,
        **how,
    )


def attest_keys(device: Device, nonce: bytes) -> dict[str, WireKeyAttestation]:
    """TPM2_Certify of both device keys for this nonce."""
    qualifying = hashlib.sha256(nonce).digest()
    with device.power() as board:
        assert board.key_prover is not None
        made = {label: board.key_prover.prove(label, qualifying) for label in ("sign", "kem")}
    return {label: WireKeyAttestation(one.public, one.attest, one.signature) for label, one in made.items()}


def test_attestation_key_outside_the_tpm_is_refused(
    device: Device, oem: Oem, refuses: Refuses, ek_public: bytes
) -> None:
    """T-92 Borrowed EK: a listed EK beside an AK in software; only the TPM that holds both can activate."""
    proof = prove(device)
    soft = SoftKey.generate()
    hello = hello_of(proof)
    assert hello.attester.ak_public is not None
    ak_public = tpm2.write_public(tpm2.read_public(hello.attester.ak_public)._replace(unique=soft.public_key()))
    attester_id = tpm2.make_name(ek_public) + tpm2.make_name(ak_public)
    said = hello._replace(attester=hello.attester._replace(ak_public=ak_public, attester_id=attester_id))

    forged = begin_anew(
        device,
        proof,
        said,
        claiming(attester_id=attester_id),
        attest=lambda board, protected, inner: quote_in_software(board, protected, inner, soft),
        activation=bytes(32),
    )
    refuses(forged, "activation")
    refuses(resign(device, forged, attest=quoting(soft), activation=None), "activation")


def quoting(key: SoftKey) -> Callable[[Board, bytes, bytes], bytes]:
    """See quote_in_software."""
    return lambda board, protected, inner: quote_in_software(board, protected, inner, key)


def quote_in_software(board: Board, protected: bytes, inner: bytes, key: SoftKey) -> bytes:
    """A quote as a TPM would make it, signed outside."""
    message = sig_structure(protected, labels.AAD_EVIDENCE, inner)
    made = board.attester.attest(message)
    assert made.attest is not None
    signature = write_tpm_signature(made.attest, key.sign(made.attest))
    pcrs = [[index, value] for index, value in made.pcrs]
    return join_sign1(protected, {registry.HEADER_ATTEST_PCRS: pcrs}, inner, signature)


def test_unrestricted_attestation_key_is_refused(device: Device, oem: Oem, refuses: Refuses, ek_public: bytes) -> None:
    """T-93 Signing oracle: an AK that also signs what it is handed can sign a quote that no TPM made."""
    hello = hello_of(prove(device))
    assert hello.attester.ak_public is not None
    ak = tpm2.read_public(hello.attester.ak_public)
    for barred in (tpm2.Attributes.RESTRICTED, tpm2.Attributes.FIXED_TPM, tpm2.Attributes.SENSITIVE_DATA_ORIGIN):
        ak_public = tpm2.write_public(ak._replace(attributes=ak.attributes & ~barred))
        attester_id = tpm2.make_name(ek_public) + tpm2.make_name(ak_public)
        said = hello._replace(attester=hello.attester._replace(ak_public=ak_public, attester_id=attester_id))
        refuses(HELLO.encode(said), "attester-material")


def test_quote_over_other_evidence_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-94 Replay: a true quote by the right AK whose extraData is not this evidence."""

    def attest(board: Board, protected: bytes, inner: bytes) -> bytes:
        other = attest_honestly(board, protected, inner + b"\x00")
        return other.replace(wrapped(inner + b"\x00"), wrapped(inner))

    def wrapped(inner: bytes) -> bytes:
        return encode(inner)

    refuses(resign(device, prove(device), attest=attest), "attester-signature")


def test_other_pcr_values_than_quoted_are_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-95 Other firmware: the PCR values beside the quote are not those it quotes, or are left out."""

    def lying(pcrs: list[list[object]]) -> Callable[[Board, bytes, bytes], bytes]:
        def attest(board: Board, protected: bytes, inner: bytes) -> bytes:
            made = board.attester.attest(sig_structure(protected, labels.AAD_EVIDENCE, inner))
            assert made.attest is not None
            signature = write_tpm_signature(made.attest, made.signature)
            return join_sign1(protected, {registry.HEADER_ATTEST_PCRS: pcrs}, inner, signature)

        return attest

    proof = prove(device)
    for pcrs in ([[index, b"\x11" * 32] for index in range(8)], [[0, bytes(32)]], []):
        refuses(resign(device, proof, attest=lying(pcrs)), "attester-signature")


def with_attestations(device: Device, proof: bytes, made: dict[str, WireKeyAttestation]) -> bytes:
    """A Proof whose claims hash these."""
    hashed = claiming(key_attestation_hashes={label: hash_key_attestation(one) for label, one in made.items()})
    return resign(device, proof, hashed, key_attestations=made)


def test_device_key_outside_the_tpm_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-96 Exported key: the enrollment keys are not certified, or another key is certified in their place."""
    proof = prove(device)
    right = attest_keys(device, challenge_of(proof).nonce)

    refuses(with_attestations(device, proof, {}), "key-attestation")
    refuses(with_attestations(device, proof, {"sign": right["sign"]}), "key-attestation")
    refuses(with_attestations(device, proof, {"sign": right["kem"], "kem": right["sign"]}), "key-attestation")
    refuses(resign(device, proof, key_attestations={**right, "kem": right["kem"]._replace(signature=bytes(64))}),
            "key-attestation")  # fmt: skip
    soft = SoftKey.generate()
    refuses(resign(device, proof, claiming(kem_key=soft.public_key())), "key-attestation")


def test_key_certified_for_another_exchange_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-97 Replay: a certification made for an older nonce, of a key that may be gone from the TPM since."""
    proof = prove(device)

    refuses(with_attestations(device, proof, attest_keys(device, bytes(60))), "key-attestation")


def test_activation_that_is_missing_or_guessed_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-98 Borrowed EK: all of it right but the secret that only EK and AK in one TPM can have."""
    proof = prove(device)

    refuses(resign(device, proof, activation=None), "activation")
    refuses(resign(device, proof, activation=bytes(32)), "activation")


def test_tpm_board_in_the_name_of_another_tpm_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-99 Stolen name: the claims tell of another EK than the one shown."""
    proof = prove(device)

    refuses(resign(device, proof, claiming(hardware_ids={"tpm-ek": b"\x00\x0b" + bytes(32)})), "ueid")
    hello = hello_of(proof)
    wrong = hello.attester._replace(attester_id=bytes(68))
    refuses(HELLO.encode(hello._replace(attester=wrong)), "attester-material")


def test_forged_credential_on_the_line_costs_one_run_only(device: Device, oem: Oem) -> None:
    """T-100 Thief on the line: a credential for another TPM, or garbage, stops no unit for good."""
    for forged in (
        Credential(bytes(68), bytes(68)),
        Credential(b"\x00\x20" + bytes(66), bytes(68)),
        Credential(b"\x01", b"\x01"),
        Credential(bytes(256), bytes(512)),
    ):
        device.line.thief = partial(put_credential, forged)
        before = device.kept() if device.disk.folder.exists() else {}
        with pytest.raises(PeerBroke):
            device.enroll()
        kept = device.kept()
        assert {name: kept[name] for name in before if not name.startswith("record")} == {
            name: value for name, value in before.items() if not name.startswith("record")
        }
        assert "latch" not in kept and device.record().stage is Stage.GREETED
    device.line.thief = lambda _asked, answer: answer

    assert device.enroll().stage is Stage.DONE
    assert oem.granted() == 1 and oem.rows("SELECT attester FROM units") == [("tpm",)]


def put_credential(credential: Credential, _asked: bytes, answer: bytes) -> bytes:
    """A Challenge with another credential inside."""
    challenge = CHALLENGE.decode(answer, limits.CHALLENGE_MAX_BYTES)
    return CHALLENGE.encode(challenge._replace(credential=credential))


def test_second_board_with_the_same_tpm_state_is_a_clone(factory: Factory, tpm: SoftTpm, oem: Oem) -> None:
    """T-101 Clone: one TPM, two disks: the second makes new device keys and is refused; the first closes."""
    first, second = factory.tpm_board(tpm), factory.tpm_board(tpm)
    proof = prove(first)
    oem.hear(proof)
    before = oem.state("alarms")

    assert refusal_check(oem.hear(prove(second))) == "clone"

    assert oem.state("alarms") == before and oem.count("alarms") == 1
    assert first.enroll().stage is Stage.DONE and oem.granted() == 1
