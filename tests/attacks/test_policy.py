"""Boards that are what they say, and not what the product wants: policy, and who may ask at all."""

from collections.abc import Callable

import pytest

from mpagent.errors import Refused
from mpissuer.challenge import CLAIMS_WANTED
from mpissuer.endorsement import Endorsed
from mpissuer.errors import ProductWrong
from mpissuer.errors import Refused as IssuerRefused
from mpissuer.evidence import check_policy
from mpissuer.policy import read_product
from mpissuer.ports import RegisteredKey
from mpserver.clock import SystemClock
from mpserver.errors import NeedsPerson
from mpserver.keystore import LAST_HEAD, Keystore
from mpserver.office import Office
from mpserver.state import Places, State
from mpserver.store.lasthead import LastHeadFile
from mpwire import registry
from mpwire.messages.plain import HELLO
from tests.attacks.conftest import Refuses
from tests.attacks.forge import (
    claiming,
    claims_of,
    prove,
    resign,
)
from tests.line import PRODUCT, Device, Factory, Oem, ask_all, class_point, fill_product, refusal_check

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]


def test_unknown_product_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-68 Mix-up: an image for a product that this server does not know."""
    device = factory.board()
    device.image = device.image._replace(product="doorbell")

    with pytest.raises(Refused, match="product"):
        device.enroll()

    assert oem.count("units") == 0


def test_simulated_silicon_is_refused_in_production(factory: Factory, oem: Oem) -> None:
    """T-75 Simulator in production: keys that mpsim made must count for nothing there, whatever else holds."""
    claims = claims_of(prove(factory.board()))
    product = read_product(fill_product(PRODUCT))
    simulated = Endorsed("mp", claims.attester_id, "simulated")
    assert check_policy(product, claims, simulated, "lab") == "L"

    with pytest.raises(IssuerRefused) as caught:
        check_policy(product, claims, simulated, "production")

    assert caught.value.check == "origin"


def test_simulated_key_is_not_imported_in_production(oem: Oem) -> None:
    """T-89 Simulator in production: an insider imports mpsim's keys, or a lab product, into a production server."""
    keystore = Keystore(oem.folder / "keys")
    last_head = LastHeadFile(oem.folder / "keys" / LAST_HEAD)
    places, clock = Places(oem.folder), SystemClock()
    state = State(places, "production", clock, keystore, oem.authority, oem.writing, last_head)  # type: ignore[arg-type]
    office = Office(state)
    before = oem.state()

    with pytest.raises(NeedsPerson, match="simulated"):
        office.import_key(RegisteredKey(bytes(32), "mp", class_point(), "simulated"))
    with pytest.raises(ProductWrong, match="realm lab"):
        office.add_product(fill_product(PRODUCT))

    assert oem.state() == before


KEPT_SECRET = PRODUCT.replace('mp_keys = ["MP_KEY", "TEST_KEY"]', f'mp_use = "secret"\nmpk = "{"0" * 32}"').replace(
    '"certificate"', '"random"'
)


def test_secret_class_key_never_signs(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-76 Key recovery: an MP signature publishes its key; one whose use is `secret` brings no Grant."""
    oem = make_oem()
    connection = oem.writing
    connection.execute("UPDATE attester_keys SET mp_use = 'secret'")
    proof = prove(make_factory(oem).board())
    before = oem.state()

    assert refusal_check(oem.hear(proof)) == "mp-use"

    assert oem.state() == before


def test_product_with_a_secret_key_takes_no_signature(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-76 Key recovery: the same where the product says so, and its boards hear it before they sign anything."""
    oem = make_oem(product=KEPT_SECRET)
    board = make_factory(oem).board()

    assert refusal_check(oem.hear(prove_hello(board))) == "mp-use"
    assert oem.granted() == 0


def test_other_srk_hash_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-77 Foreign boot chain: the part says other SRK fuses, or none."""
    device = factory.board()
    proof = prove(device)

    refuses(resign(device, proof, claiming(srk_hash=bytes(32))), "srk-hash")
    refuses(resign(device, proof, claiming(srk_hash=None)), "srk-hash")


@pytest.mark.parametrize("version", [("1.1.9",), ("0",), ("1.2beta",), None])
def test_old_provisioning_image_is_refused(
    factory: Factory, oem: Oem, refuses: Refuses, version: tuple[str] | None
) -> None:
    """T-78 Leaked image: one below the product's minimum, or of no readable version, signs in vain."""
    device = factory.board()

    refuses(resign(device, prove(device), claiming(swversion=version)), "software-version")


def test_grade_that_the_product_does_not_take_is_refused(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-79 Weak attester: a lab part for a product that wants genuine ones."""
    oem = make_oem(product=PRODUCT.replace('grades = ["L"]', 'grades = ["S", "K"]'))

    assert refusal_check(oem.hear(prove(make_factory(oem).board()))) == "grade"
    assert oem.granted() == 0 and oem.count("entries") == 0


def test_attester_that_is_not_pinned_is_refused(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-83 Downgrade: a kind of attester that the product does not name, and one nobody implements."""
    oem = make_oem(product=PRODUCT.replace('["mp", "tpm"]', '["tpm"]'))
    proof = prove_hello(make_factory(oem).board())
    hello = HELLO.decode(proof, len(proof))
    card = hello._replace(attester=hello.attester._replace(kind="card", profile=None, x5chain=(b"\x30",)))
    before = oem.state()

    assert refusal_check(oem.hear(proof)) == "attester"
    assert refusal_check(oem.hear(HELLO.encode(card))) == "attester"

    assert oem.state() == before


def prove_hello(device: Device) -> bytes:
    """The Hello of a board."""
    hello = ask_all(device, "greeted").outbox
    assert hello is not None
    return hello


def test_incomplete_attester_material_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-84 Confusion: material of one kind under the name of another, or with parts missing."""
    raw = prove_hello(factory.board())
    hello = HELLO.decode(raw, len(raw))
    one = hello.attester

    for wrong in (
        one._replace(profile=None),
        one._replace(attester_id=bytes(68)),
        one._replace(ek_public=b"\x00"),
        one._replace(x5chain=(b"\x30",)),
        one._replace(kind="tpm"),
        one._replace(kind="tpm", profile=None),
    ):
        refuses(HELLO.encode(hello._replace(attester=wrong)), "attester-material")


def test_unknown_wire_version_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-85 Downgrade: a device that speaks no version of ours is told so, for good."""
    raw = prove_hello(factory.board())

    refuses(HELLO.encode(HELLO.decode(raw, len(raw))._replace(versions=(2, 7))), "wire-version")


def test_line_credential_is_refused_not_ignored(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-86 Insider at the CM: a line credential that nobody can check must not pass for one that was checked."""
    raw = prove_hello(factory.board())

    refuses(HELLO.encode(HELLO.decode(raw, len(raw))._replace(line=(b"credential", bytes(64)))), "line")


def test_claim_left_out_is_refused_by_its_check(factory: Factory, oem: Oem) -> None:
    """T-88 Silence: a board that leaves out a claim the policy needs is refused by that claim's check."""
    device = factory.board()
    proof = prove(device)
    assert registry.CLAIM_LIFE_CYCLE in CLAIMS_WANTED
    before = oem.state()

    assert refusal_check(oem.hear(resign(device, proof, claiming(life_cycle=None)))) == "life-cycle"

    assert oem.state() == before
