"""Evidence that is forged, borrowed, re-wrapped or made by a part the product does not want."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from mpagent.errors import NotClosed, Refused
from mpagent.hal.ports import Board
from mpagent.runner import run
from mpsim import fuses
from mpsim.board import BoardPlan, close_fuse, power_cycle
from mpwire import labels, mp, registry
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure
from mpwire.csr import write_csr
from mpwire.limits import PROOF_MAX_BYTES
from mpwire.messages.eat import Confirmation
from mpwire.messages.plain import PROOF, WireKeyAttestation, hash_key_attestation
from mpwire.p256 import SoftKey
from tests.attacks.conftest import Refuses
from tests.attacks.forge import (
    attest_honestly,
    begin_anew,
    claiming,
    claims_of,
    headers_of,
    hello_of,
    prove,
    resign,
)
from tests.line import PRODUCT, Device, Factory, Oem, class_point, refusal_check, test_point

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]
OTHER_PART = BoardPlan(part="imx8mm", srk_hash=fuses.srk_hash_of("another oem"), closed=True)


def attest_with(key: SoftKey, mpmr: bytes = mp.MPMR_OPTEE) -> Callable[[Board, bytes, bytes], bytes]:
    """A signature like the chip's, by a key in software."""

    def attest(_board: Board, protected: bytes, inner: bytes) -> bytes:
        message = sig_structure(protected, labels.AAD_EVIDENCE, inner)
        return join_sign1(protected, {registry.HEADER_MPMR: mpmr}, inner, key.sign_digest(mp.digest(message, mpmr)))

    return attest


def respelled(signature: bytes | None = None, **unprotected: Any) -> Callable[[Board, bytes, bytes], bytes]:
    """The chip's own envelope with another signature or other headers beside it."""

    def attest(board: Board, protected: bytes, inner: bytes) -> bytes:
        made = board.attester.attest(sig_structure(protected, labels.AAD_EVIDENCE, inner))
        headers = {registry.HEADER_MPMR: unprotected.get("mpmr", made.mpmr)}
        return join_sign1(protected, headers, inner, made.signature if signature is None else signature)

    return attest


def test_re_wrapped_evidence_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-50 Re-wrapping: claims that were made beside one attester, inside the envelope of another."""
    victim, thief = factory.board(), factory.board(closed=False)
    proof = prove(thief)
    stolen = claims_of(prove(victim)).attester_id

    refuses(resign(thief, proof, claiming(attester_id=stolen)), "attester-id")

    assert hello_of(proof).attester.attester_id == mp.key_id(test_point()) != stolen


def test_open_board_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-51 Open part: nothing protects what is sealed on it."""
    refuses(prove(factory.board(closed=False)), "life-cycle")


def test_open_board_that_lies_is_refused_by_its_key(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-52 Open part: root claims "closed", but only the public test key signs there, and no product names it."""
    oem = make_oem(product=PRODUCT.replace(', "TEST_KEY"', ""))
    device = make_factory(oem).board(closed=False)
    before = oem.state()

    forged = resign(device, prove(device), claiming(life_cycle=3))

    assert refusal_check(oem.hear(forged)) == "attester-key"
    assert oem.state() == before


def test_board_with_a_blown_fuse_and_no_reboot_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-53 Half closed: the fuse says closed, the running boot still uses the test key."""
    device = factory.board(closed=False)
    close_fuse(device.folder / "chip")
    proof = prove(device)
    assert claims_of(proof).life_cycle == 2

    refuses(proof, "life-cycle")

    power_cycle(device.folder / "chip")
    assert claims_of(prove(factory.copy_chip(device))).life_cycle == 3


@pytest.mark.parametrize("blown", [False, True])
def test_board_that_is_not_closed_seals_nothing(make_oem: MakeOem, make_factory: MakeFactory, blown: bool) -> None:
    """T-54 Sealed under the test key: the server's policy takes any part, the image does not: the device stops (P6)."""
    oem = make_oem(product=PRODUCT.replace('life_cycle = "closed"', 'life_cycle = "any"'))
    device = make_factory(oem).board(closed=False)
    if blown:
        close_fuse(device.folder / "chip")
    prove(device)
    before = device.kept()

    with pytest.raises(NotClosed, match="reboot" if blown else "not closed"):
        device.enroll()

    assert device.kept() == before and not (device.disk.folder / "vault").exists()
    assert oem.count("grants") == 1 and oem.rows("SELECT closed FROM units") == [(None,)]


def test_closed_fuse_without_live_proof_seals_nothing(factory: Factory, oem: Oem) -> None:
    """T-55 Sealed under the test key: the part reads closed, but its image pins no key and nobody vouches."""
    device = factory.board()
    device.image = device.image._replace(mp_key_ids=())
    prove(device)
    before = device.kept()

    with device.power() as board:
        blind = board._replace(soc=Mute(board.soc))
        parts = device.parts(blind)
        with pytest.raises(NotClosed, match="nothing in this boot proves it"):
            run(parts)

    assert device.kept() == before


class Mute:
    """A board whose secure world vouches for nothing: every fact comes from the kernel."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def read_facts(self) -> Any:
        facts = self._real.read_facts()
        return facts._replace(closed_by="")


def test_test_key_alone_is_no_known_attester(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-56 Test key: every open part of the world signs with it; unlisted, it opens nothing."""
    oem = make_oem(product=PRODUCT.replace(', "TEST_KEY"', ""))
    device = make_factory(oem).board(closed=False)

    with pytest.raises(Refused, match="attester-key"):
        device.enroll()

    assert oem.granted() == 0 and oem.count("entries") == 0


def test_part_of_another_oem_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-57 Foreign part: a genuine closed part with other SRK fuses has another class key."""
    refuses(prove(factory.board(plan=OTHER_PART)), "attester-key")


def test_claimed_key_of_another_part_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-58 Foreign part: it names our class key in its Hello and signs with its own."""
    device = factory.board(plan=OTHER_PART)
    proof = prove(device)
    ours = mp.key_id(class_point())
    hello = hello_of(proof)

    forged = begin_anew(
        device, proof, hello._replace(attester=hello.attester._replace(attester_id=ours)), claiming(attester_id=ours)
    )

    refuses(forged, "attester-signature")


def test_signature_in_software_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-59 Forgery: an MP signature by a key that is in no chip."""
    device = factory.board()

    refuses(resign(device, prove(device), attest=attest_with(SoftKey.generate())), "attester-signature")


def test_zero_signature_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-60 Broken driver: a failed call leaves zeros in the buffer, which no verifier may take."""
    device = factory.board()

    refuses(resign(device, prove(device), attest=respelled(bytes(64))), "attester-signature")


def test_board_booted_without_our_firmware_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-61 Other boot chain: the MPMR stays zero where OP-TEE did not fill it."""
    refuses(prove(factory.board(plan=BoardPlan(closed=True, mpmr="zero"))), "mpmr")


def test_mpmr_written_over_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-62 Other boot chain: the zero MPMR is replaced by the right one; the signature covers it."""
    device = factory.board(plan=BoardPlan(closed=True, mpmr="zero"))

    refuses(resign(device, prove(device), attest=respelled(mpmr=mp.MPMR_OPTEE)), "attester-signature")


def test_device_signature_by_another_key_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-63 Stolen name: the claims name a device key that did not sign them."""
    device = factory.board()
    proof = prove(device)

    refuses(resign(device, proof, sign=SoftKey.generate()), "device-signature")
    refuses(resign(device, proof, claiming(cnf=Confirmation(SoftKey.generate().public_key()))), "device-signature")


@pytest.mark.parametrize("point", [bytes(64), b"\x00" * 63 + b"\x01", b"\xff" * 64])
def test_kem_key_off_the_curve_is_refused(factory: Factory, oem: Oem, refuses: Refuses, point: bytes) -> None:
    """T-64 Invalid curve: a KEM key that is no point would make the issuer's ECDH answer for it."""
    device = factory.board()
    proof = prove(device)
    right = claims_of(proof).kem_key

    def attest(board: Board, protected: bytes, inner: bytes) -> bytes:
        changed = inner.replace(right[1:33], point[:32]).replace(right[33:], point[32:])
        assert changed != inner
        return attest_honestly(board, protected, changed)

    refuses(resign(device, proof, attest=attest), "device-signature")


def test_name_that_the_chip_does_not_give_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-65 Class-key abuse: root claims a ueid that its hardware id does not give, or none."""
    device = factory.board()
    proof = prove(device)
    other = b"\x01" + bytes(32)

    refuses(resign(device, proof, claiming(ueid=other)), "ueid")
    refuses(begin_anew(device, proof, hello_of(proof)._replace(ueid=other)), "ueid")
    refuses(begin_anew(device, proof, hello_of(proof)._replace(ueid=other), claiming(ueid=other)), "ueid")
    refuses(resign(device, proof, claiming(hardware_ids={})), "ueid")
    refuses(resign(device, proof, claiming(hardware_ids={"imx-uid": bytes(8)})), "ueid")


def test_evidence_for_another_realm_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-66 Mix-up: an image of the production realm at a lab server."""
    device = factory.board()

    refuses(resign(device, prove(device), claiming(realm="production")), "realm")


def test_evidence_for_another_product_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-67 Mix-up: the Hello asks for one product, the signed claims are about another."""
    device = factory.board()

    refuses(resign(device, prove(device), claiming(product="doorbell")), "product")


def test_csr_that_the_evidence_does_not_hash_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-69 Swapped request: CSRs travel outside the signatures; another board's request is put in."""
    device, other = factory.board(), factory.board()
    proof = prove(device)

    refuses(resign(device, proof, csrs={"identity": csr_by(SoftKey.generate())}), "csr")
    refuses(resign(device, proof, csrs={}), "csr")
    refuses(resign(device, proof, csrs={**csrs_of(proof), "more": csrs_of(prove(other))["identity"]}), "csr")


def csr_by(key: SoftKey) -> bytes:
    """A good request for any key."""
    return write_csr(key.public_key(), key.sign)


def csrs_of(proof: bytes) -> dict[str, bytes]:
    """The requests of a Proof."""
    return dict(PROOF.decode(proof, PROOF_MAX_BYTES).csrs)


def with_csr(device: Device, proof: bytes, csr: bytes, **how: Any) -> bytes:
    """A Proof whose claims do hash this request."""
    hashes = {"identity": hashlib.sha256(csr).digest()}
    return resign(device, proof, claiming(csr_hashes=hashes, **how), csrs={"identity": csr})


def test_csr_for_the_device_key_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-70 One key, two uses: a certificate over the sign or the KEM key would let it speak elsewhere."""
    device = factory.board()
    proof = prove(device)
    with device.power() as board:
        keys = [board.keyring.find_or_make(label) for label in (labels.DEVICE_SIGN, labels.DEVICE_KEM)]
        requests = [csr_by(key) for key in keys]  # type: ignore[arg-type]

    for request in requests:
        refuses(with_csr(device, proof, request), "csr")


def test_one_key_for_sign_and_kem_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-70 One key, two uses: the KEM key is the sign key."""
    device = factory.board()
    proof = prove(device)

    refuses(resign(device, proof, claiming(kem_key=claims_of(proof).cnf.key)), "csr")


def test_csr_without_possession_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-71 Stolen key: a request for somebody else's public key, signed by nobody who has it."""
    device = factory.board()
    proof = prove(device)
    request = bytearray(csr_by(SoftKey.generate()))
    request[-1] ^= 1

    refuses(with_csr(device, proof, bytes(request)), "csr")


@pytest.mark.parametrize(
    "garbage", [b"\x30", b"\x30\x80" + bytes(20), b"-----BEGIN CERTIFICATE REQUEST-----", bytes(2048)]
)
def test_csr_that_is_garbage_is_refused(factory: Factory, oem: Oem, refuses: Refuses, garbage: bytes) -> None:
    """T-72 Parser attack: hostile DER where a request should be."""
    device = factory.board()

    refuses(with_csr(device, prove(device), garbage), "csr")


def test_slots_other_than_the_products_are_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-73 Greed: the image of another version asks for fewer, more or doubled slots."""
    device = factory.board()
    proof = prove(device)
    right = claims_of(proof).slots_wanted

    for slots in (right[:-1], (*right, "root-password"), (*right, right[0]), ()):
        refuses(resign(device, proof, claiming(slots_wanted=slots)), "slots-wanted")


def test_attestation_of_keys_without_a_tpm_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-74 Overclaim: a board without a TPM says its keys live in one."""
    device = factory.board()
    made = WireKeyAttestation(b"\x00", b"\x00", bytes(64))
    edit = claiming(key_attestation_hashes={"sign": hash_key_attestation(made)})

    refuses(resign(device, prove(device), edit, key_attestations={"sign": made}), "key-attestation")


@pytest.mark.parametrize("alg", sorted(registry.UNVERIFIED_ALGS))
def test_profile_without_a_real_vector_is_refused(factory: Factory, oem: Oem, refuses: Refuses, alg: int) -> None:
    """T-80 Downgrade to the unknown: P-384 and P-521 parts are reserved and verified by nobody yet."""
    device = factory.board()

    refuses(resign(device, prove(device), protected=headers_of(alg)), "profile-unverified")


@pytest.mark.parametrize("alg", [registry.ALG_ES256, registry.ALG_TPM_QUOTE_ES256])
def test_algorithm_of_another_attester_is_refused(factory: Factory, oem: Oem, refuses: Refuses, alg: int) -> None:
    """T-81 Confusion: the envelope names an algorithm that this kind of attester does not have."""
    device = factory.board()

    refuses(resign(device, prove(device), protected=headers_of(alg)), "evidence-alg")


@pytest.mark.parametrize(
    ("profile", "check"),
    [("relay/1", "profile-unverified"), (None, "profile"), ("raw2", "profile"), ({"raw": 1}, "profile")],
)
def test_other_mp_profile_is_refused(factory: Factory, oem: Oem, refuses: Refuses, profile: Any, check: str) -> None:
    """T-82 Confusion: claims said to be written by the secure world, or by nobody known."""
    device = factory.board()

    refuses(resign(device, prove(device), protected=headers_of(registry.ALG_MP_ES256, profile)), check)


def test_unknown_critical_header_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-87 Envelope: a header that must be understood, an algorithm outside the list or outside the protected part."""
    device = factory.board()
    proof = prove(device)
    base = {registry.HEADER_ALG: registry.ALG_MP_ES256, registry.HEADER_TYP: labels.TYP_EVIDENCE}
    base[registry.HEADER_PROFILE] = "raw"

    for headers in (
        {**base, registry.HEADER_CRIT: [registry.HEADER_ALG]},
        {**base, registry.HEADER_TYP: labels.TYP_GRANT},
        {**base, registry.HEADER_ALG: -8},
        {key: value for key, value in base.items() if key != registry.HEADER_ALG},
        {**base, 99: b"new"},
    ):
        refuses(resign(device, proof, protected=encode(headers)), "malformed")
