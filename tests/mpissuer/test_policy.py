"""The product file, the grade and every policy rule: what is left out is strict, what is wrong is named."""

import re
from dataclasses import replace

import pytest

from mpissuer.endorsement import Endorsed
from mpissuer.errors import ProductWrong, Refused
from mpissuer.evidence import check_policy, grade_of
from mpissuer.policy import _KEYS, _SLOT_KEYS, CERTIFICATES_MAX, Product, read_product, read_version
from mpwire import mp
from mpwire.messages.eat import CLAIMS, Claims
from mpwire.p256 import SoftKey
from tests.fuzz.decoders import MP, take_payload
from tests.fuzz.issuer import PRODUCT
from tests.vectors import exchange, world

LEAST = 'name = "p"\nattesters = ["mp"]\ngrades = ["S"]\n'
SLOT = '\n[[slot]]\nname = "a"\nkind = "random"\n'
WRONG_OF_TYPE = {str: "7", list: '"x"', int: '"7"', dict: "7"}
POINT = world.ESCROW.public_key().hex()

CLAIMED: Claims = CLAIMS.decode(take_payload(MP.inner), 3_584)
SILICON = Endorsed("mp", bytes(32), "silicon")
SIMULATED = Endorsed("mp", bytes(32), "simulated")
CERTIFIED_TPM = Endorsed("tpm", bytes(34), "certified")


def slots(count: int, kind: str, more: str = "") -> str:
    return LEAST + "".join(f'\n[[slot]]\nname = "s{place}"\nkind = "{kind}"\n{more}' for place in range(count))


def test_a_rule_left_out_is_the_strict_one() -> None:
    product = read_product(LEAST + SLOT)
    assert (product.realm, product.life_cycle, product.profile, product.mp_use) == ("lab", "closed", "raw", "sign")
    assert (product.mp_keys, product.srk_hashes, product.eks, product.ek_roots) == ((), (), (), ())
    assert product.mpmrs == (mp.MPMR_OPTEE,)
    (slot,) = product.slots
    assert (slot.destination, slot.length, slot.version, slot.value, slot.escrow) == ("sealed", 32, 1, None, None)


def test_another_byte_in_the_file_is_another_policy() -> None:
    assert read_product(LEAST + SLOT).digest != read_product(LEAST + SLOT + "# seen\n").digest


@pytest.mark.parametrize("key", ["nmae", "grade", "allow_open", "skip_checks", "Realm"])
def test_a_misspelt_rule_is_an_error_and_never_a_rule_ignored(key: str) -> None:
    with pytest.raises(ProductWrong, match=f"unknown key '{key}'"):
        read_product(f"{key} = true\n" + LEAST + SLOT)


@pytest.mark.parametrize("key", ["lenght", "vaule_hex", "optional"])
def test_a_misspelt_slot_key_is_an_error(key: str) -> None:
    with pytest.raises(ProductWrong, match=f"^unknown key '{key}'") as caught:
        read_product(LEAST + SLOT + f"{key} = 1\n")
    assert (caught.value.slot, caught.value.key) == (0, key)


@pytest.mark.parametrize("key", _KEYS)
def test_a_value_of_another_type_is_refused_by_its_key(key: str) -> None:
    rest = "".join(line + "\n" for line in LEAST.splitlines() if not line.startswith(f"{key} "))
    with pytest.raises(ProductWrong, match=key):
        read_product(f"{key} = {WRONG_OF_TYPE[_KEYS[key]]}\n" + rest + ("" if key == "slot" else SLOT))


@pytest.mark.parametrize("key", _SLOT_KEYS)
def test_a_slot_value_of_another_type_is_refused_by_its_key(key: str) -> None:
    rest = "".join(line + "\n" for line in SLOT.splitlines() if not line.startswith(f"{key} "))
    with pytest.raises(ProductWrong, match=key):
        read_product(LEAST + rest + f"{key} = {WRONG_OF_TYPE[_SLOT_KEYS[key]]}\n")


@pytest.mark.parametrize("key", ["name", "attesters", "grades", "slot"])
def test_what_must_be_said_and_is_not_is_named(key: str) -> None:
    text = LEAST + ("" if key == "slot" else SLOT)
    with pytest.raises(ProductWrong, match=key):
        read_product(
            "".join(line + "\n" for line in text.split("\n\n[[")[0].splitlines() if not line.startswith(key))
            + ("" if key == "slot" else SLOT)
        )


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('realm = "prod"', "realm"),
        ('life_cycle = "open"', "life_cycle"),
        ('profile = "relay/1"', "profile"),
        ('mp_use = "both"', "mp_use"),
        ('mpmr = ["optee", "any"]', "mpmr"),
        ('mpmr = ["00"]', "mpmr"),
        ('mp_keys = ["' + "00" * 31 + '"]', "mp_keys"),
        ("mp_keys = [" + "1" * 64 + "]", "mp_keys"),
        ('srk_hashes = ["xx"]', "srk_hashes"),
        ('eks = ["' + "00" * 33 + '"]', "eks"),
        ('ek_roots = ["-----BEGIN CERTIFICATE-----"]', "ek_roots"),
        ("ek_roots = [7]", "ek_roots"),
        ('minimum_software = "1.x"', "version"),
        ('minimum_software = ""', "version"),
        ('minimum_software = "1.-2"', "version"),
        ("realm = ", "not TOML"),
        ("deep = " + "[" * 5_000 + "]" * 5_000, "not TOML"),
        ("long = " + "9" * 5_000, "not TOML"),
    ],
)
def test_a_value_outside_its_list_is_refused_by_its_key(line: str, named: str) -> None:
    with pytest.raises(ProductWrong, match=named):
        read_product(line + "\n" + LEAST + SLOT)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LEAST + SLOT + SLOT, "one name"),
        (LEAST, "1 to 64"),
        (slots(65, "local"), "1 to 64"),
        (slots(1, "pool"), "kind"),
        (slots(1, "random", 'destination = "disk"'), "destination"),
        (slots(1, "random", "length = 15"), "length"),
        (slots(1, "random", "length = 4097"), "length"),
        (slots(1, "random", "version = 0"), "version"),
        (slots(1, "random", "version = 9223372036854775808"), "version"),
        (slots(1, "random", 'value_hex = "00"'), "value_hex"),
        (slots(1, "static"), "value_hex"),
        (slots(1, "static", 'value_hex = "' + "00" * 32_769 + '"'), "value_hex"),
        (slots(1, "local", 'escrow = "04"'), "escrow"),
        (slots(1, "local", 'escrow = "04' + "00" * 64 + '"'), "escrow"),
        (slots(1, "random", f'escrow = "{POINT}"'), "escrow"),
        (slots(2, "local", f'escrow = "{POINT}"\nlength = 4000'), "receipt"),
        (slots(CERTIFICATES_MAX + 1, "certificate"), "certificate slots"),
        (slots(30, "random", "length = 4096"), "longer together"),
        (slots(4, "static", 'value_hex = "' + "00" * 32_768 + '"'), "longer together"),
        (slots(40, "local").replace('"s', '"' + "n" * 60), "names"),
    ],
)
def test_slots_that_no_grant_or_proof_could_carry_are_refused(text: str, named: str) -> None:
    with pytest.raises(ProductWrong, match=named):
        read_product(text)


def test_a_static_value_does_not_print() -> None:
    product = read_product(slots(1, "static", 'value_hex = "c0ffee01"'))
    assert "c0ffee01" not in repr(product) and b"\xc0\xff".hex() not in str(product.slots)


def test_versions_compare_by_number() -> None:
    assert read_version("1.10") > read_version("1.9") > read_version("1") > read_version("0.99.99")


def test_only_closed_mp_silicon_is_grade_s() -> None:
    cases = {
        (origin, cycle): grade_of(Endorsed("mp", bytes(32), origin), CLAIMED._replace(life_cycle=cycle))
        for origin in ("silicon", "simulated")
        for cycle in (None, 1, 2, 3, 4)
    }
    assert [case for case, grade in cases.items() if grade == "S"] == [("silicon", 3)]
    assert {case for case, grade in cases.items() if grade == "K"} == {("silicon", None)}


def test_a_bare_tpm_is_never_better_than_k() -> None:
    grades = [grade_of(CERTIFIED_TPM, CLAIMED._replace(life_cycle=cycle)) for cycle in (None, 1, 2, 3, 4)]
    assert grades == ["K", "L", "L", "K", "L"]


def judge(product: Product, claims: Claims, endorsed: Endorsed = SILICON, realm: str = "lab") -> str:
    return check_policy(product, claims, endorsed, realm)


def test_a_board_as_the_product_wants_it_passes() -> None:
    assert judge(PRODUCT, CLAIMED) == "S"
    assert judge(PRODUCT, CLAIMED, SIMULATED) == "L"
    assert judge(replace(PRODUCT, life_cycle="any"), CLAIMED._replace(life_cycle=None)) == "K"
    assert judge(replace(PRODUCT, minimum_software=(0,)), CLAIMED._replace(swversion=None)) == "S"
    assert judge(replace(PRODUCT, srk_hashes=()), CLAIMED._replace(srk_hash=None)) == "S"


@pytest.mark.parametrize(
    ("check", "product", "claims", "endorsed", "realm"),
    [
        ("origin", PRODUCT, CLAIMED, SIMULATED, "production"),
        ("mp-use", replace(PRODUCT, mp_use="secret"), CLAIMED, SILICON, "lab"),
        ("mp-use", PRODUCT, CLAIMED, SILICON._replace(mp_use="secret"), "lab"),
        *(("life-cycle", PRODUCT, CLAIMED._replace(life_cycle=one), SILICON, "lab") for one in (None, 1, 2, 4)),
        ("srk-hash", PRODUCT, CLAIMED._replace(srk_hash=bytes(32)), SILICON, "lab"),
        ("srk-hash", PRODUCT, CLAIMED._replace(srk_hash=None), SILICON, "lab"),
        *(
            ("software-version", PRODUCT, CLAIMED._replace(swversion=one), SILICON, "lab")
            for one in (None, ("1.1.9",), ("0",), ("latest",), ("1.2-rc1",))
        ),
        ("grade", replace(PRODUCT, grades=("S",)), CLAIMED, SIMULATED, "lab"),
        ("grade", replace(PRODUCT, grades=("K", "L")), CLAIMED, SILICON, "lab"),
    ],
)
def test_each_rule_refuses_by_its_own_name(
    check: str, product: Product, claims: Claims, endorsed: Endorsed, realm: str
) -> None:
    with pytest.raises(Refused) as refused:
        judge(product, claims, endorsed, realm)
    assert refused.value.check == check


def test_the_vectors_board_is_the_one_judged_here() -> None:
    assert CLAIMED.srk_hash == exchange.SRK_HASH and CLAIMED.life_cycle == 3


BUNDLED = """
name = "gateway"
attesters = ["mp"]
grades = ["S"]
mp_use = "secret"
mpk = "00112233445566778899aabbccddeeff"
family = "imx8mm"

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "firmware"
kind = "file"
destination = "plain"

[[slot]]
name = "licence"
kind = "static"

[[slot]]
name = "update-owner"
kind = "update-key"
"""


def test_a_product_served_by_bundles_is_read() -> None:
    product = read_product(BUNDLED)
    assert (product.mp_use, product.mpk, product.family) == (
        "secret",
        bytes.fromhex("00112233445566778899aabbccddeeff"),
        "imx8mm",
    )
    assert [slot.kind for slot in product.slots] == ["local", "file", "static", "update-key"]
    assert product.slots[2].value is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('mpk = "00112233445566778899aabbccddeeff"\n', "", "mpk is missing"),
        ('mpk = "00', 'mpk = "', "mpk: needs 16 bytes"),
        ('mp_use = "secret"', "", 'mpk does not go with mp_use = "sign"'),
        ('mp_use = "secret"', f'mp_use = "secret"\nmp_keys = ["{"00" * 32}"]', "mp_keys does not go with"),
        ('family = "imx8mm"', 'family = ""', "family is missing"),
        ('family = "imx8mm"', f'family = "{"x" * 33}"', "1 to 32 bytes"),
        ('kind = "static"', 'kind = "certificate"', "kind = 'certificate' is not one of"),
        ('name = "licence"', 'name = "policy"', "rights of update authorities"),
        ('name = "update-owner"', 'name = "update-stranger"', "slots of kind update-key"),
        ('kind = "update-key"', 'kind = "random"', "slots of kind update-key"),
        ('kind = "local"', f'kind = "local"\nescrow = "{SoftKey.generate().public_key().hex()}"', "no escrow"),
        ('kind = "file"', 'kind = "file"\nvalue_hex = "00"', "value_hex belongs to kind static"),
    ],
)
def test_what_a_bundle_cannot_bring_is_named(old: str, new: str, said: str) -> None:
    assert old in BUNDLED
    with pytest.raises(ProductWrong, match=re.escape(said)):
        read_product(BUNDLED.replace(old, new))


@pytest.mark.parametrize("kind", ["file", "update-key"])
def test_a_line_brings_no_slot_that_bundles_bring(kind: str) -> None:
    with pytest.raises(ProductWrong, match="is not one of local, random, static, certificate"):
        read_product(PRODUCT_TEXT_OF_A_LINE.replace('"random"', f'"{kind}"'))


PRODUCT_TEXT_OF_A_LINE = """
name = "gateway"
attesters = ["mp"]
grades = ["S"]

[[slot]]
name = "cloud"
kind = "random"
"""
