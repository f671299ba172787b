"""Cards of strangers, borrowed certificates, and cards that wander from board to board."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mpagent.errors import Refused
from mpsim.piv.memory import CardAuthority, make_card
from mpsim.piv.slot import CardSlot
from mpwire import labels
from mpwire.cose import join_sign1, sig_structure
from mpwire.p256 import SoftKey
from mpwire.ueid import make_ueid
from tests.attacks.conftest import Refuses
from tests.attacks.forge import begin_anew, claiming, claims_of, hello_of, prove, resign
from tests.contract.rigs.card import AUTHORITY, CardRig
from tests.line import PRODUCT, Factory, Oem, refusal_check
from tests.rigged import RiggedDevice

CARDS = PRODUCT.replace('["mp", "tpm"]', '["card"]').replace('["L"]', '["K"]')


@pytest.fixture
def oem(make_oem: Callable[..., Oem]) -> Oem:
    """An issuer that takes cards of one authority, grade K."""
    return make_oem(product=f"card_roots = ['''{AUTHORITY.pem}''']\n{CARDS}")


def make_board(factory: Factory, folder: Path, authority: CardAuthority = AUTHORITY) -> RiggedDevice:
    make_card(folder / "card", authority)
    return RiggedDevice(factory, folder / "device", CardRig(folder, CardSlot(folder / "card")))


def test_card_of_another_authority_is_refused(factory: Factory, tmp_path: Path, refuses: Refuses) -> None:
    """T-310 Stranger: a card that anybody can buy, issued by an authority of the same name."""
    device = make_board(factory, tmp_path / "stranger", CardAuthority())

    refuses(prove(device), "card-certificate")


def test_borrowed_certificate_signs_nothing(factory: Factory, tmp_path: Path, refuses: Refuses) -> None:
    """T-311 Borrowed certificate: a thief shows a good card's public certificate and signs by his own key."""
    good = make_board(factory, tmp_path / "good")
    thief = SoftKey.generate()

    def attest(_board: object, protected: bytes, inner: bytes) -> bytes:
        return join_sign1(protected, {}, inner, thief.sign(sig_structure(protected, labels.AAD_EVIDENCE, inner)))

    refuses(resign(good, prove(good), attest=attest), "attester-signature")


def test_certificate_made_by_a_card_is_refused(factory: Factory, tmp_path: Path, refuses: Refuses) -> None:
    """T-312 Self-made chain: root on a board has its card's leaf stand above a certificate of his own."""
    device = make_board(factory, tmp_path / "board")
    proof, own = prove(device), CardAuthority()
    leaf = own.certify(SoftKey.generate().public_key(), "forged")
    hello = hello_of(proof)
    shown = hello.attester._replace(
        x5chain=(leaf, *(hello.attester.x5chain or ())), attester_id=hashlib.sha256(leaf).digest()
    )

    refuses(
        begin_anew(device, proof, hello._replace(attester=shown), claiming(attester_id=shown.attester_id)),
        "card-certificate",
    )


def test_card_takes_no_other_name(factory: Factory, tmp_path: Path, refuses: Refuses) -> None:
    """T-313 Another board's name: root on a board states the card-key of a victim."""
    victim, thief = make_board(factory, tmp_path / "victim"), make_board(factory, tmp_path / "thief")
    stolen = claims_of(prove(victim)).hardware_ids["card-key"]
    proof = prove(thief)
    name = make_ueid("card", claims_of(proof).hwmodel.decode(), stolen)
    ids = {**claims_of(proof).hardware_ids, "card-key": stolen}

    forged = begin_anew(thief, proof, hello_of(proof)._replace(ueid=name), claiming(ueid=name, hardware_ids=ids))

    refuses(forged, "ueid")


def test_card_moved_to_another_board_is_a_clone(factory: Factory, oem: Oem, tmp_path: Path) -> None:
    """T-314 Moved card: the card of a finished board is put into another, to have its secrets a second time."""
    first = make_board(factory, tmp_path / "first")
    first.enroll()
    units = oem.rows("SELECT * FROM units")
    (tmp_path / "second").mkdir()
    shutil.copytree(tmp_path / "first" / "card", tmp_path / "second" / "card")
    second = RiggedDevice(
        factory, tmp_path / "second" / "device", CardRig(tmp_path / "second", CardSlot(tmp_path / "second" / "card"))
    )

    with pytest.raises(Refused, match="clone"):
        second.enroll()

    assert oem.rows("SELECT * FROM units") == units and oem.granted() == 1
    assert [kind for kind, _, _ in oem.alarms()] == ["clone"]


def test_card_where_the_product_pins_none_is_refused(
    factory: Factory, tmp_path: Path, make_oem: Callable[..., Oem]
) -> None:
    """T-315 Mix-up: the product file names no root for cards, so no card counts."""
    device = make_board(factory, tmp_path / "board")
    other = make_oem(product=CARDS)
    device.line.oem = other

    assert refusal_check(other.hear(prove(device))) == "card-certificate"
    assert other.count("units") == 0
