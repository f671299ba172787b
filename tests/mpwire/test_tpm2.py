"""TPM structures and checks: evidence of another key, another machine state or another question is refused by name."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire import p256, tpm2
from mpwire.errors import Malformed, PeerBroke, Unauthentic
from mpwire.secret import Secret
from mpwire.tpm2 import Attributes

AK = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x31"))
KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x32"))
QUESTION = sha256(b"Sig_structure").digest()
PCRS = tuple((index, sha256(b"%d" % index).digest()) for index in (0, 1, 7, 16, 23))

AK_PUBLIC = tpm2.Public(
    tpm2.BORN_HERE | Attributes.RESTRICTED | Attributes.SIGN | Attributes.USER_WITH_AUTH,
    AK.public_key(),
    scheme=tpm2.ALG_ECDSA,
)
KEY_PUBLIC = tpm2.Public(tpm2.BORN_HERE | Attributes.SIGN | Attributes.NO_DA, KEY.public_key())
EK_ATTRIBUTES = tpm2.BORN_HERE | Attributes.RESTRICTED | Attributes.DECRYPT | Attributes.ADMIN_WITH_POLICY
EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK_PUBLIC = tpm2.Public(EK_ATTRIBUTES, KEY.public_key(), EK_POLICY, symmetric_bits=128)
RSA_PUBLIC = tpm2.Public(EK_ATTRIBUTES, b"\xc0" + bytes(254) + b"\x01", EK_POLICY, symmetric_bits=128)
PUBLICS = [AK_PUBLIC, KEY_PUBLIC, EK_PUBLIC, RSA_PUBLIC, RSA_PUBLIC._replace(exponent=65537)]

SIGNER = b"\x00\x0b" + bytes(32)
CLOCK = tpm2.Clock(123456, 7, 3, True)
QUOTE = tpm2.Attest(
    SIGNER, QUESTION, CLOCK, 2**63, tpm2.Quote(tuple(i for i, _ in PCRS), tpm2.digest_pcrs([v for _, v in PCRS]))
)
CERTIFY = QUOTE._replace(attested=tpm2.Certify(tpm2.make_name(tpm2.write_public(KEY_PUBLIC)), SIGNER))


def test_ecc_ek_template_is_spelled_as_the_tcg_profile_does() -> None:
    """Template L-2 of the TCG EK Credential Profile, with our point in it."""
    expected = "0023000b000300b20020" + EK_POLICY.hex() + "000600800043001000030010"
    expected += "0020" + KEY.public_key()[1:33].hex() + "0020" + KEY.public_key()[33:].hex()
    assert tpm2.write_public(EK_PUBLIC).hex() == expected


@pytest.mark.parametrize("public", PUBLICS)
def test_public_areas_come_back_and_have_one_end(public: tpm2.Public) -> None:
    raw = tpm2.write_public(public)
    assert tpm2.read_public(raw) == public
    assert tpm2.make_name(raw) == b"\x00\x0b" + sha256(raw).digest()
    for wrong in (*(raw[:end] for end in range(len(raw))), raw + b"\x00"):
        with pytest.raises(Malformed, match="tpm-public"):
            tpm2.read_public(wrong)


@pytest.mark.parametrize(
    ("at", "patch"),
    [
        (0, "0025"),
        (0, "0008"),
        (2, "000c"),
        (4, "80"),
        (7, "01"),
        (8, "0014"),
        (42, "0026"),
        (44, "00c0"),
        (46, "0042"),
        (48, "001a"),
        (50, "0004"),
        (52, "0020"),
        (54, "0021"),
        (54, "001f"),
    ],
)
def test_public_area_outside_our_profiles_is_refused(at: int, patch: str) -> None:
    raw, new = tpm2.write_public(EK_PUBLIC), bytes.fromhex(patch)
    with pytest.raises(Malformed, match="tpm-public"):
        tpm2.read_public(raw[:at] + new + raw[at + len(new) :])


def test_rsa_modulus_that_is_none_is_refused() -> None:
    for modulus in (b"\x7f" + bytes(254) + b"\x01", b"\xc0" + bytes(255)):
        with pytest.raises(Malformed, match="tpm-public"):
            tpm2.read_public(tpm2.write_public(RSA_PUBLIC._replace(unique=modulus)))
    with pytest.raises(Malformed, match="tpm-public"):
        tpm2.read_public(tpm2.write_public(RSA_PUBLIC._replace(exponent=3)))


def test_point_off_the_curve_is_refused() -> None:
    with pytest.raises(Malformed, match="p256-point"):
        tpm2.read_public(tpm2.write_public(KEY_PUBLIC)[:-1] + b"\x00")


@pytest.mark.parametrize("attest", [QUOTE, CERTIFY, QUOTE._replace(extra_data=b"", clock=CLOCK._replace(safe=False))])
def test_attests_come_back_and_have_one_end(attest: tpm2.Attest) -> None:
    raw = tpm2.write_attest(attest)
    assert tpm2.read_attest(raw) == attest
    for wrong in (*(raw[:end] for end in range(len(raw))), raw + b"\x00"):
        with pytest.raises(Malformed, match="tpm-attest"):
            tpm2.read_attest(wrong)


def patched(raw: bytes, at: int, value: str) -> bytes:
    new = bytes.fromhex(value)
    return raw[:at] + new + raw[at + len(new) :]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "ff544346"),
        (4, "8014"),
        (4, "8019"),
        (6, "0004"),
        (8, "000c"),
        (42, "0041"),
        (92, "02"),
        (101, "00000000"),
        (101, "00000002"),
        (105, "0004"),
        (107, "02"),
        (111, "001f"),
    ],
)
def test_attest_outside_our_profile_is_refused(at: int, value: str) -> None:
    """T Forged TPM evidence: without TPM_GENERATED_VALUE an unrestricted key could have signed these bytes."""
    with pytest.raises(Malformed, match="tpm-attest"):
        tpm2.read_attest(patched(tpm2.write_attest(QUOTE), at, value))


def quote(attest: tpm2.Attest = QUOTE, key: p256.SoftKey = AK, question: bytes = QUESTION, pcrs: Any = PCRS) -> Any:
    raw = tpm2.write_attest(attest)
    return tpm2.verify_quote(raw, key.sign(raw), AK.public_key(), question, pcrs)


def certify(
    attest: tpm2.Attest = CERTIFY, key: p256.SoftKey = AK, question: bytes = QUESTION, public: tpm2.Public = KEY_PUBLIC
) -> Any:
    raw = tpm2.write_attest(attest)
    return tpm2.verify_certify(raw, key.sign(raw), AK.public_key(), question, tpm2.write_public(public))


def certified(public: tpm2.Public) -> Any:
    """The AK really certified this key, so that only its attributes speak against it."""
    name = tpm2.make_name(tpm2.write_public(public))
    return certify(CERTIFY._replace(attested=tpm2.Certify(name, SIGNER)), public=public)


def test_good_quote_and_certification_pass() -> None:
    assert quote() == QUOTE
    assert certify() == KEY_PUBLIC


REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("tpm-signature", lambda: quote(key=KEY)),
    ("tpm-signature", lambda: certify(key=KEY)),
    ("tpm-type", lambda: quote(CERTIFY)),
    ("tpm-type", lambda: certify(QUOTE)),
    ("tpm-extra-data", lambda: quote(question=bytes(32))),
    ("tpm-extra-data", lambda: quote(QUOTE._replace(extra_data=QUESTION[:31]))),
    ("tpm-extra-data", lambda: certify(question=bytes(32))),
    ("tpm-pcr-selection", lambda: quote(pcrs=PCRS[1:])),
    ("tpm-pcr-selection", lambda: quote(pcrs=())),
    ("tpm-pcr-selection", lambda: quote(pcrs=(*PCRS[1:], PCRS[0]))),
    ("tpm-pcr-selection", lambda: quote(pcrs=(*PCRS, PCRS[-1]))),
    ("tpm-pcr-digest", lambda: quote(pcrs=((0, bytes(32)), *PCRS[1:]))),
    # The same concatenation cut elsewhere has the same digest: each value's size must hold.
    ("tpm-pcr-digest", lambda: quote(pcrs=((0, PCRS[0][1] + PCRS[1][1][:1]), (1, PCRS[1][1][1:]), *PCRS[2:]))),
    ("tpm-name", lambda: certify(public=KEY_PUBLIC._replace(attributes=KEY_PUBLIC.attributes | Attributes.DECRYPT))),
    ("tpm-name", lambda: certify(public=AK_PUBLIC)),
    ("tpm-key-attributes", lambda: certified(AK_PUBLIC)),
    ("tpm-key-attributes", lambda: certified(RSA_PUBLIC)),
    *(
        (
            "tpm-key-attributes",
            lambda flag=flag: certified(KEY_PUBLIC._replace(attributes=KEY_PUBLIC.attributes ^ flag)),
        )
        for flag in (*tpm2.BORN_HERE, Attributes.ENCRYPTED_DUPLICATION)
    ),
    *(
        (
            "tpm-ak-attributes",
            lambda flag=flag: tpm2.check_ak(AK_PUBLIC._replace(attributes=AK_PUBLIC.attributes ^ flag)),
        )
        for flag in (*tpm2.BORN_HERE, Attributes.RESTRICTED, Attributes.SIGN, Attributes.DECRYPT)
    ),
    ("tpm-ak-attributes", lambda: tpm2.check_ak(AK_PUBLIC._replace(scheme=tpm2.ALG_NULL))),
    ("tpm-ak-attributes", lambda: tpm2.check_ak(EK_PUBLIC)),
    *(
        ("tpm-ek-attributes", lambda flag=flag: tpm2.check_ek(EK_PUBLIC._replace(attributes=EK_ATTRIBUTES ^ flag)))
        for flag in (*tpm2.BORN_HERE, Attributes.RESTRICTED, Attributes.SIGN, Attributes.DECRYPT)
    ),
    ("tpm-ek-attributes", lambda: tpm2.check_ek(EK_PUBLIC._replace(symmetric_bits=None))),
    ("tpm-ek-attributes", lambda: tpm2.check_ek(AK_PUBLIC)),
]


@pytest.mark.parametrize(("rule", "attempt"), REFUSED)
def test_evidence_is_refused_by_the_check_that_fails(rule: str, attempt: Callable[[], Any]) -> None:
    """T Bare key as TPM key, quote of another state, replayed quote, certificate for another key."""
    with pytest.raises(Unauthentic) as caught:
        attempt()
    assert str(caught.value) == rule


def test_good_ak_and_ek_pass() -> None:
    tpm2.check_ak(AK_PUBLIC)
    tpm2.check_ek(EK_PUBLIC)
    tpm2.check_ek(RSA_PUBLIC)


def test_unrestricted_key_cannot_pass_its_bytes_for_a_quote() -> None:
    """T Software quote: an unrestricted TPM key signs whatever it is given, TPM_GENERATED_VALUE and all."""
    with pytest.raises(Unauthentic, match="tpm-ak-attributes"):
        tpm2.check_ak(KEY_PUBLIC._replace(scheme=tpm2.ALG_ECDSA))


@given(st.sampled_from([tpm2.write_public(public) for public in PUBLICS]), st.data())
def test_changed_public_areas_are_malformed_or_another_name(raw: bytes, data: st.DataObject) -> None:
    at, mask = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    changed = raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]
    try:
        read = tpm2.read_public(changed)
    except Malformed:
        return
    assert tpm2.write_public(read) == changed
    assert tpm2.make_name(changed) != tpm2.make_name(raw)


@given(st.sampled_from([tpm2.write_attest(QUOTE), tpm2.write_attest(CERTIFY)]), st.data())
def test_changed_attests_are_malformed_or_spelled_once(raw: bytes, data: st.DataObject) -> None:
    at, mask = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    changed = raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]
    with pytest.raises(PeerBroke):
        tpm2.verify_quote(changed, AK.sign(raw), AK.public_key(), QUESTION, PCRS)
    try:
        read = tpm2.read_attest(changed)
    except Malformed:
        return
    assert tpm2.write_attest(read) == changed


@given(st.binary(max_size=200))
def test_garbage_is_only_malformed(raw: bytes) -> None:
    for prefix in (b"", b"\x00\x23\x00\x0b", b"\xff\x54\x43\x47\x80\x18"):
        for read in (tpm2.read_public, tpm2.read_attest):
            with pytest.raises(Malformed):
                read(prefix + raw)
