"""What a product file says of cards and attestation keys, and the walk from a certificate to a pinned root."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpissuer.attesters import card, mp, optee, tpm
from mpissuer.endorsement import Endorsed, check_path, read_certificate
from mpissuer.errors import ProductWrong
from mpissuer.evidence import ATTESTERS
from mpissuer.policy import ATTESTERS as PINNABLE
from mpissuer.policy import Product, read_product
from mpwire.errors import Malformed, Unauthentic
from mpwire.messages.plain import MATERIAL, Material
from mpwire.ueid import HARDWARE_ID_OF_KIND
from tests.vectors import cards, exchange, world

LEAST = 'name = "p"\nattesters = ["optee"]\ngrades = ["K"]\n{more}\n[[slot]]\nname = "a"\nkind = "random"\n'
KEY = "11" * 32


def read(more: str = "") -> Product:
    return read_product(LEAST.format(more=more))


def test_every_kind_on_the_wire_has_its_checks_its_name_and_its_place_in_a_product() -> None:
    on_the_wire = set(MATERIAL.fields[0].shape.allowed)  # type: ignore[attr-defined]  # the shape of `kind`
    assert on_the_wire == set(ATTESTERS) == set(PINNABLE) == set(HARDWARE_ID_OF_KIND)
    assert len({one.ALG for one in (card, mp, optee, tpm)}) == len(ATTESTERS)


def test_left_out_lists_allow_no_card_and_no_op_tee() -> None:
    product = read()
    assert (product.card_roots, product.optee_keys, product.optee_rule, product.optee_measurements) == (
        *((), (), "listed", ()),
    )


def test_the_words_for_keys_and_measurements_stand_alone() -> None:
    assert read('optee_keys = ["imported"]').optee_rule == "imported"
    assert read('optee_keys = ["first-use"]').optee_rule == "first-use"
    assert read(f'optee_keys = ["{KEY}"]').optee_keys == (bytes.fromhex(KEY),)
    assert read('optee_measurements = ["any"]').optee_measurements is None
    assert read(f'optee_measurements = ["{KEY}"]').optee_measurements == (bytes.fromhex(KEY),)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (f'optee_keys = ["imported", "{KEY}"]', "optee_keys"),
        ('optee_keys = ["imported", "first-use"]', "optee_keys"),
        ('optee_keys = ["Imported"]', "optee_keys"),
        ('optee_keys = ["11"]', "optee_keys"),
        (f'optee_measurements = ["any", "{KEY}"]', "optee_measurements"),
        ('optee_measurements = ["*"]', "optee_measurements"),
        ('card_roots = ["no certificate"]', "card_roots"),
        ("card_roots = [7]", "card_roots"),
        ('realm = "production"\noptee_keys = ["first-use"]', "first-use is for realm lab"),
    ],
)
def test_a_rule_that_says_two_things_is_an_error(more: str, said: str) -> None:
    with pytest.raises(ProductWrong, match=said):
        read(more)


@pytest.mark.parametrize("kind", sorted(ATTESTERS))
def test_material_of_its_kind_is_taken_and_no_part_of_another(kind: str) -> None:
    from mpissuer.evidence import check_material

    own = exchange.material(kind)
    check_material(own)
    other = Material(
        kind,
        own.attester_id,
        profile="raw",
        ek_public=world.EK_PUBLIC,
        ek_certificate=b"0",
        ak_public=world.AK_PUBLIC,
        x5chain=cards.CHAIN,
        rsa_public=exchange.material("optee").rsa_public,
    )
    for field in ("profile", "ek_public", "ek_certificate", "ak_public", "x5chain", "rsa_public"):
        if getattr(own, field) is None and (kind, field) != ("tpm", "ek_certificate"):
            with pytest.raises(Malformed, match="does not fit"):
                check_material(own._replace(**{field: getattr(other, field)}))


ROOTS = (cards.ROOT_PEM,)


def walk(chain: tuple[bytes, ...], roots: tuple[str, ...] = ROOTS, now: int = world.NOW) -> None:
    check_path(read_certificate(chain[0]), chain[1:], roots, now)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def test_authorities_between_may_be_shown_or_pinned_in_any_order() -> None:
    between = pem(x509.load_der_x509_certificate(cards.BETWEEN))
    walk(cards.CHAIN)
    walk((cards.CERTIFICATE,), (cards.ROOT_PEM, between))
    walk((cards.CERTIFICATE,), (between, cards.ROOT_PEM))
    walk((cards.CERTIFICATE, cards.der(cards.ROOT), cards.BETWEEN))


def test_a_pinned_authority_without_its_root_ends_nothing() -> None:
    """A path ends at a certificate that signed itself, as it does for a TPM's maker."""
    with pytest.raises(Unauthentic, match="leads to a pinned root"):
        walk((cards.CERTIFICATE,), (pem(x509.load_der_x509_certificate(cards.BETWEEN)),))


def test_no_root_at_all_ends_nothing() -> None:
    with pytest.raises(Unauthentic):
        walk((*cards.CHAIN, cards.der(cards.ROOT)), ())


def test_a_path_without_end_is_cut() -> None:
    """Two authorities that certify each other would be walked for ever."""
    one = cards.certify("one", cards.ROOT_KEY, "two", cards.BETWEEN_KEY, cards.authority())
    two = cards.certify("two", cards.BETWEEN_KEY, "one", cards.ROOT_KEY, cards.authority())
    leaf = cards.certify("leaf", cards.CARD, "one", cards.ROOT_KEY)
    with pytest.raises(Unauthentic, match="too long"):
        walk((cards.der(leaf), cards.der(one), cards.der(two)))


def test_a_pinned_root_keeps_its_own_path_length() -> None:
    narrow = cards.certify("card root", cards.ROOT_KEY, "card root", cards.ROOT_KEY, cards.authority(0))
    with pytest.raises(Unauthentic, match="path length"):
        walk(cards.CHAIN, (pem(narrow),))


@pytest.mark.parametrize("now", [world.NOW - 2 * world.DAY, world.NOW + 366 * world.DAY])
def test_the_issuers_clock_decides_what_is_valid(now: int) -> None:
    with pytest.raises(Unauthentic, match="not valid now"):
        walk(cards.CHAIN, now=now)


@pytest.mark.parametrize("raw", [b"", b"\x30\x00", cards.CERTIFICATE[:-1], cards.CERTIFICATE + b"\x00", bytes(4_096)])
def test_what_is_no_certificate_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed, match="cannot be read"):
        read_certificate(raw)


def test_what_the_library_reads_late_is_read_at_once() -> None:
    """Found by fuzzing: an issuer's name that is none came to light in the middle of the walk, as a bug."""
    name = b"\x0c\x09card root"
    assert cards.BETWEEN.count(name) == 1
    with pytest.raises(Malformed, match="cannot be read"):
        read_certificate(cards.BETWEEN.replace(name, b"\x0c\x09card\xff\xffoot"))
    odd = x509.load_der_x509_certificate(cards.BETWEEN.replace(name, b"\x0c\x09card\xff\xffoot"))
    with pytest.raises(ProductWrong, match="card_roots"):
        read(f"card_roots = ['''{pem(odd)}''']")


def test_an_mp_key_proves_no_unit() -> None:
    assert Endorsed("mp", bytes(32), "silicon").hardware_id is None
