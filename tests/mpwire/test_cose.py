"""COSE_Sign1 and COSE_Key: what the signature covers, and every way an envelope may lie about it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire import codec, cose, p256
from mpwire.codec import Tag, decode, encode
from mpwire.cose import read_sign1, write_sign1
from mpwire.errors import Malformed, PeerBroke, Unauthentic
from mpwire.registry import ALG_ES256, ALG_MP_ES256, HEADER_ALG, HEADER_CRIT, HEADER_MPMR, HEADER_TYP
from mpwire.secret import Secret

KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x03"))
OTHER = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x04"))
TYP, AAD = "application/x", b"mpagent/1/x"
ALGS = frozenset({ALG_ES256})
HEADERS: Any = {HEADER_ALG: ALG_ES256, HEADER_TYP: TYP}


def envelope(headers: Any = HEADERS, unprotected: Any = None, payload: Any = b"p", signature: Any = bytes(64)) -> bytes:
    protected = headers if isinstance(headers, bytes) else encode(headers)
    return encode(Tag(18, [protected, unprotected or {}, payload, signature]))


REFUSED: list[tuple[str, bytes]] = [
    ("cose-structure", encode([encode(HEADERS), {}, b"p", b"s"])),
    ("cose-structure", encode(Tag(18, {}))),
    ("cose-structure", encode(Tag(18, [encode(HEADERS), {}, b"p"]))),
    ("cose-structure", encode(Tag(18, [encode(HEADERS), {}, b"p", b"s", b"s"]))),
    ("cose-structure", encode(Tag(18, [HEADERS, {}, b"p", b"s"]))),
    ("cose-structure", encode(Tag(18, [encode(HEADERS), b"", b"p", b"s"]))),
    ("cose-structure", encode(Tag(18, Tag(18, [encode(HEADERS), {}, b"p", b"s"])))),
    ("cose-protected", envelope(b"\x80")),
    ("cose-alg", envelope({HEADER_TYP: TYP})),
    ("cose-alg", envelope(b"")),
    ("cose-alg", envelope({HEADER_ALG: ALG_MP_ES256, HEADER_TYP: TYP})),
    ("cose-alg", envelope({HEADER_ALG: "ES256", HEADER_TYP: TYP})),
    ("cose-alg", envelope({HEADER_ALG: [], HEADER_TYP: TYP})),
    ("cose-alg", envelope({HEADER_TYP: TYP}, {HEADER_ALG: ALG_ES256})),
    ("cose-crit", envelope({**HEADERS, HEADER_CRIT: [HEADER_TYP]})),
    ("cose-crit", envelope({**HEADERS, HEADER_CRIT: []})),
    ("cose-typ", envelope({HEADER_ALG: ALG_ES256})),
    ("cose-typ", envelope({**HEADERS, HEADER_TYP: TYP + "x"})),
    ("cose-typ", envelope({HEADER_ALG: ALG_ES256}, {HEADER_TYP: TYP})),
    ("cose-header", envelope({**HEADERS, 4: b"kid"})),
    ("cose-header", envelope({**HEADERS, "x": 1})),
    ("cose-unprotected", envelope(unprotected={HEADER_ALG: ALG_ES256})),
    ("cose-unprotected", envelope(unprotected={HEADER_CRIT: [1]})),
    ("cose-unprotected", envelope(unprotected={HEADER_TYP: TYP})),
    ("cose-unprotected", envelope(unprotected={4: b"kid"})),
    ("cose-unprotected", envelope(unprotected={"x": 1})),
    ("cose-detached", encode(Tag(18, [encode(HEADERS), {}, None, b"s"]))),
    ("cose-detached", envelope(payload="p")),
    ("cose-signature", envelope(signature=b"")),
    ("cose-signature", envelope(signature=[b"a", b"b"])),
    ("not-shortest", envelope(b"\xa1\x18\x01\x26")),
    ("map-key-duplicate", envelope(b"\xa2\x01\x26\x01\x26")),
    ("trailing-bytes", envelope(encode(HEADERS) + b"\x00")),
    ("tag", b"\xd1" + encode([encode(HEADERS), {}, b"p", b"s"])),
]


@pytest.mark.parametrize(("rule", "raw"), REFUSED)
def test_envelope_is_refused_by_its_own_rule(rule: str, raw: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        read_sign1(raw, typ=TYP, algs=ALGS)
    assert str(caught.value) == rule


def test_every_rule_has_a_refused_envelope() -> None:
    assert {rule for rule, _ in REFUSED} >= set(cose.RULES) - {"cose-key"}


def test_alg_and_crit_stay_protected_even_where_a_caller_lists_them() -> None:
    """T Algorithm swap: an unprotected alg is anybody's to change."""
    for label in (HEADER_ALG, HEADER_CRIT, HEADER_TYP):
        with pytest.raises(Malformed, match="cose-unprotected"):
            read_sign1(envelope(unprotected={label: 1}), typ=TYP, algs=ALGS, unprotected_allowed=frozenset({label}))


def test_critical_header_is_refused_even_where_its_label_is_known() -> None:
    raw = envelope({**HEADERS, HEADER_CRIT: [4], 4: b"kid"})
    with pytest.raises(Malformed, match="cose-crit"):
        read_sign1(raw, typ=TYP, algs=ALGS, protected_allowed=frozenset({4, HEADER_CRIT}))


def test_allowed_headers_arrive() -> None:
    raw = envelope({**HEADERS, 4: b"kid"}, {HEADER_MPMR: bytes(32)})
    read = read_sign1(
        raw, typ=TYP, algs=ALGS, protected_allowed=frozenset({4}), unprotected_allowed=frozenset({HEADER_MPMR})
    )
    assert (read.headers[4], read.unprotected, read.alg) == (b"kid", {HEADER_MPMR: bytes(32)}, ALG_ES256)


def test_signature_covers_headers_payload_and_context() -> None:
    raw = write_sign1(HEADERS, b"payload", AAD, KEY.sign)
    read = read_sign1(raw, typ=TYP, algs=ALGS)
    cose.verify_es256(read, KEY.public_key(), AAD)
    outer = decode(raw)
    assert isinstance(outer, Tag) and isinstance(outer.value, list)
    changed = read_sign1(encode(Tag(18, [outer.value[0], {}, b"payloae", outer.value[3]])), typ=TYP, algs=ALGS)
    retyped = read_sign1(
        encode(Tag(18, [encode({**HEADERS, HEADER_TYP: "y"}), {}, b"payload", outer.value[3]])), typ="y", algs=ALGS
    )
    for sign1, point, aad in (
        (read, OTHER.public_key(), AAD),
        (read, KEY.public_key(), b"mpagent/1/y"),
        (changed, KEY.public_key(), AAD),
        (retyped, KEY.public_key(), AAD),
    ):
        with pytest.raises(Unauthentic, match="signature"):
            cose.verify_es256(sign1, point, aad)


def test_envelope_of_another_algorithm_is_not_verified_as_es256() -> None:
    """T Algorithm confusion: a device key's bytes under the MP algorithm's name."""
    raw = write_sign1({HEADER_ALG: ALG_MP_ES256, HEADER_TYP: TYP}, b"p", AAD, KEY.sign)
    read = read_sign1(raw, typ=TYP, algs=frozenset({ALG_ES256, ALG_MP_ES256}))
    with pytest.raises(Unauthentic, match="cose-alg"):
        cose.verify_es256(read, KEY.public_key(), AAD)


def test_sig_structure_is_rfc_9052_section_4_4() -> None:
    assert cose.sig_structure(b"\xa1\x01\x26", b"", b"hi").hex() == "846a5369676e61747572653143a101264042" + b"hi".hex()


def test_cose_working_group_example_verifies() -> None:
    """cose-wg/Examples, sign1-tests/sign-pass-01: a signature made by other code; it has no typ, so read by hand."""
    x = "bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff"
    y = "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
    signature = (
        "8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e"
        "2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36"
    )
    payload = b"This is the content."
    sign1 = cose.Sign1(b"\xa1\x01\x26", {1: -7}, {}, payload, bytes.fromhex(signature))
    cose.verify_es256(sign1, bytes.fromhex("04" + x + y), b"")


def test_failed_signer_leaves_no_envelope() -> None:
    def refuse(message: bytes) -> bytes:
        raise Unauthentic("chip says no")

    with pytest.raises(Unauthentic, match="chip says no"):
        write_sign1(HEADERS, b"p", AAD, refuse)


def test_key_has_one_form() -> None:
    point = KEY.public_key()
    item = cose.write_key(point)
    assert cose.spell_key(point) == encode(item)
    assert item == {1: 2, -1: 1, -2: point[1:33], -3: point[33:]}
    assert cose.read_key(decode(encode(item))) == point


@pytest.mark.parametrize(
    "change",
    [
        {1: 1},
        {1: True},
        {-1: 2},
        {-1: True},
        {-2: b""},
        {-2: KEY.public_key()[2:33]},
        {-2: b"\x00" + KEY.public_key()[1:33]},
        {-3: True},
        {3: -7},
        {-4: bytes(32)},
        {2: b"kid"},
    ],
)
def test_key_of_another_form_is_refused(change: dict[int, Any]) -> None:
    """Two spellings of one key would have two thumbprints; a private key (-4) has no business here."""
    with pytest.raises(Malformed, match="cose-key"):
        cose.read_key({**cose.write_key(KEY.public_key()), **change})


def test_key_off_the_curve_and_no_map_at_all() -> None:
    with pytest.raises(Malformed, match="p256-point"):
        cose.read_key({**cose.write_key(KEY.public_key()), -3: bytes(32)})
    items: tuple[Any, ...] = (None, [], b"", {}, 1)
    for item in items:
        with pytest.raises(Malformed, match="cose-key"):
            cose.read_key(item)


def test_thumbprint_of_rfc_9679() -> None:
    """RFC 9679 section 6: the example key and its SHA-256 thumbprint."""
    x = "65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d"
    y = "1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c"
    thumbprint = "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"
    assert cose.thumbprint(bytes.fromhex("04" + x + y)).hex() == thumbprint


@given(st.binary(max_size=120))
def test_garbage_is_only_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read_sign1(b"\xd2\x84" + raw, typ=TYP, algs=ALGS)


GOOD = write_sign1(HEADERS, b"payload", AAD, KEY.sign)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_survives(at: int, mask: int) -> None:
    """Every byte of the envelope is either read strictly or covered by the signature."""
    raw = GOOD[:at] + bytes([GOOD[at] ^ mask]) + GOOD[at + 1 :]
    with pytest.raises(PeerBroke):
        cose.verify_es256(read_sign1(raw, typ=TYP, algs=ALGS), KEY.public_key(), AAD)


@given(st.binary(max_size=60), st.dictionaries(st.integers(-9, 9), st.binary(max_size=9)))
def test_what_was_written_is_read_back(payload: bytes, unprotected: dict[int, bytes]) -> None:
    clean = {label: value for label, value in unprotected.items() if label not in HEADERS and label != HEADER_CRIT}
    raw = write_sign1(HEADERS, payload, AAD, KEY.sign, clean)
    read = read_sign1(raw, typ=TYP, algs=ALGS, unprotected_allowed=frozenset(clean))
    assert (read.headers, read.unprotected, read.payload) == (HEADERS, clean, payload)
    assert cose.join_sign1(read.protected, clean, read.payload, read.signature) == raw
    assert codec.encode(codec.decode(raw)) == raw
