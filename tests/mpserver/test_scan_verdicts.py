"""mpserver.scan: what a hit is. Signatures give keys, programs give them to whoever asks, private keys load."""

import base64
import json
import re
import runpy
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mpserver.scan import names, optee
from mpserver.scan.curve import find_points, recover_keys
from mpserver.scan.filters import make_filter, read_filter
from mpserver.scan.findings import Finding, Kind, Severity
from mpserver.store.database import make_database
from mpwire import mp
from mpwire.codec import encode
from mpwire.mpk import HiddenMpKey
from mpwire.p256 import SoftKey
from tests.mpserver.consoles import BOARD_A, OTHER, pubk, seco, sign, sign_by
from tests.mpserver.plants import SOUGHT, evidence, noise, pem_of, private_key, walk, walk_bytes
from tests.vectors.silicon import A_DIGEST, A_KEY, A_SIGNATURE
from tests.walls.rooms import ROOT

OTHER_SOUGHT = read_filter(make_filter(HiddenMpKey(OTHER.public_key()[1:])))


def among(body: bytes) -> bytes:
    """With something before and behind."""
    return noise(3_000) + b"\n\0" + body + b"\0\n" + noise(3_000, 1)


def tell(found: list[Finding]) -> set[tuple[str, str]]:
    return {(one.kind.value, one.severity.value) for one in found}


def test_the_key_of_a_real_signature_is_computed_from_it() -> None:
    """T-625 Key recovery: one signature with its digest is the key."""
    assert A_KEY in set(recover_keys(bytes.fromhex(A_DIGEST), A_SIGNATURE))
    assert A_KEY in set(find_points(A_KEY[:32]))
    for _ in range(5):
        key, digest = SoftKey.generate(), noise(32)
        assert key.public_key()[1:] in set(recover_keys(digest, key.sign_digest(digest)))
    assert list(recover_keys(bytes(32), bytes(64))) == []


def test_a_log_with_a_signature_by_this_product_is_a_leak_without_the_key_in_it() -> None:
    """T-625 Key recovery: the log's key was redacted, its signature was not."""
    assert A_KEY.hex().upper() not in sign()
    found = walk_bytes(among(sign().encode()))
    assert ("mp-signature", "leak") in tell(found)
    (leak,) = [one for one in found if one.kind == Kind.MP_SIGNATURE]
    assert leak.form == "U-Boot log" and "the key follows" in leak.said


def test_a_signature_by_another_key_is_told_apart() -> None:
    found = walk_bytes(among(sign_by(OTHER, b"\x01\x02", mp.MPMR_OPTEE).encode()))
    assert ("mp-signature", "review") in tell(found) and ("mp-signature", "leak") not in tell(found)
    found = walk_bytes(among(sign_by(OTHER, b"\x01\x02", mp.MPMR_OPTEE).encode()), (OTHER_SOUGHT,))
    assert ("mp-signature", "leak") in tell(found)


def test_c_and_d_alone_are_shown_to_a_person() -> None:
    halves = "\n".join(sign().splitlines()[-6:])
    assert "Message" not in halves.split("Signature:")[1]
    found = walk_bytes(among(halves.split("Signature:")[1].encode() + b"\n"))
    assert tell(found) == {("mp-signature", "review")}
    assert ("mp-signature", "review") in tell(walk_bytes(among(seco().encode())))


@pytest.mark.parametrize("mpmr", [mp.MPMR_ZERO, mp.MPMR_OPTEE, noise(32)])
def test_evidence_of_a_board_of_this_product_is_a_leak(mpmr: bytes) -> None:
    """T-625 Kept proof: an mpagent's record with its Proof was left on the image."""
    found = walk_bytes(among(evidence(OTHER, mpmr)), (SOUGHT, OTHER_SOUGHT))
    assert tell(found) == {("mp-signature", "leak")}
    assert tell(walk_bytes(among(evidence(OTHER, mpmr)))) == {("mp-signature", "review")}


def test_damaged_evidence_is_no_signature() -> None:
    whole = evidence(OTHER, mp.MPMR_OPTEE)
    for cut in range(0, len(whole), 7):
        assert ("mp-signature", "leak") not in tell(walk_bytes(whole[:cut], (OTHER_SOUGHT,))), cut


def test_a_boot_loader_with_mfgprot_is_told_from_a_log_that_mentions_it() -> None:
    """T-627 Open door: U-Boot prints the key for whoever has a cable."""
    program = b"\0mfgprot\0\nGenerating Manufacturing Protection Public Key\n\0Public key:\n\0%02X\0"
    found = walk_bytes(among(program))
    assert tell(found) == {("mp-software", "open")} and len(found) == 2
    for name in (b"export_key_blob", b"get-mppubk"):
        assert tell(walk_bytes(among(b"ls\0" + name + b"\0help\0"))) == {("mp-software", "open")}
    found = walk_bytes(among(pubk(OTHER.public_key()[1:]).encode()))
    assert tell(found) == {("mp-log", "review")}
    assert walk_bytes(b"the manual says: mfgprot pubk, export_key_blob and get-mppubk\n" * 9) == []
    found = walk_bytes(among(BOARD_A.encode()))
    assert {("mp-public-key", "leak"), ("mp-signature", "leak"), ("mp-log", "review")} <= tell(found)


ASKS = (0xA9BF7BFD, 0x910003FD, 0x97FFBD60, 0xB40000A0, 0x129FFFC0, 0xA8C17BFD, 0xD65F03C0)
"""stp, mov, bl ts_get_calling_session, cbz, mov w0 ACCESS_DENIED, ldp, ret: as GCC 12 makes it."""
LETS_IN = (0x52800000, 0xD65F03C0)
"""mov w0 0, ret: the same with CFG_NXP_CAAM_MP_NO_ACCESS_CTRL."""


def tee(opening: Sequence[int] | None, base: int = 0xBE000000, lead: int = 28, flags: int = 0x1C) -> bytes:
    """What of an OP-TEE core counts here: name, head and code, each where the others say, behind a header."""
    name_at, head_at, code_at = 0x7EE95, 0x840A8, 0x349B4
    body = bytearray(noise(0x90000, 11))
    body[name_at : name_at + 29] = optee.NAME
    entry = 0 if opening is None else base + code_at
    head = optee.UUID + struct.pack("<QIIQQQQQ", base + name_at, flags, 0, 0, 0, entry, 0, base + 0x34820)
    body[head_at : head_at + len(head)] = head
    code = struct.pack(f"<{len(opening or ())}I", *(opening or ()))
    body[code_at : code_at + len(code)] = code
    return noise(lead, 12) + bytes(body)


def test_the_code_of_an_optee_tells_who_may_open_its_engine() -> None:
    """T-627 Open door: an OP-TEE built with CFG_NXP_CAAM_MP_NO_ACCESS_CTRL, of which no string tells."""
    for base, lead in ((0xBE000000, 28), (0x56000000, 0), (0, 4096 + 3)):
        assert tell(walk_bytes(tee(LETS_IN, base, lead))) == {("mp-optee", "open")}
        assert walk_bytes(tee(ASKS, base, lead)) == []
    assert tell(walk_bytes(tee(None))) == {("mp-optee", "open")}
    for unclear in ((0x52800000, *ASKS[2:4]), (0x12800000, 0xD65F03C0), (0xD503201F,) * 40, ASKS[:4]):
        assert tell(walk_bytes(tee(unclear))) == {("mp-optee", "review")}, unclear
    assert tell(walk_bytes(tee(ASKS, flags=0))) == {("mp-optee", "review")}
    assert tell(walk_bytes(tee(LETS_IN)[: 0x840A8 + 40])) == {("mp-optee", "review")}


def test_what_else_of_optee_a_binary_tells() -> None:
    """T-627 Open door: a TA that signs for whoever asks, an OP-TEE of 2019, one that is not all there."""
    ta = bytes.fromhex("00f2aa8a5024e411abe20002a5d5c51c")
    assert tell(walk_bytes(among(ta))) == {("mp-optee", "open")}
    assert tell(walk_bytes(among(b"manuf_protec.pta\0"))) == {("mp-optee", "open")}
    assert tell(walk_bytes(among(optee.UUID))) == {("mp-optee", "review")}
    (found,) = walk_bytes(among(optee.NAME))
    assert (found.severity, found.form) == (Severity.REVIEW, "pseudo-TA") and "--optee-conf" in found.said


def _private_keys() -> dict[str, bytes]:
    p256, p384, p521 = private_key(), private_key(ec.SECP384R1()), private_key(ec.SECP521R1())
    small, large = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 3072)
    edwards = ed25519.Ed25519PrivateKey.generate()
    made = {}
    for name, key in (("p256", p256), ("p384", p384), ("p521", p521), ("rsa", small), ("rsa3072", large)):
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            for encoding in (Encoding.PEM, Encoding.DER):
                made[f"{name} {form} {encoding}"] = key.private_bytes(encoding, form, NoEncryption())
    made["ssh"] = edwards.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    made["ed25519-der"] = edwards.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    made["pem-in-json"] = json.dumps({"key": pem_of(p256).decode()}).encode()
    numbers = p256.private_numbers()
    x, y, d = (
        one.to_bytes(32, "big") for one in (numbers.public_numbers.x, numbers.public_numbers.y, numbers.private_value)
    )
    made["cose"] = encode({1: 2, -1: 1, -2: x, -3: y, -4: d})
    text = {name: base64.urlsafe_b64encode(one).rstrip(b"=").decode() for name, one in (("x", x), ("y", y), ("d", d))}
    made["jwk"] = json.dumps({"kty": "EC", "crv": "P-256", **text}).encode()
    return made


def test_private_keys_are_found_in_every_form() -> None:
    """T-628 Private key: whoever buys one board has the key of all."""
    for name, body in _private_keys().items():
        found = walk_bytes(among(body), ())
        assert tell(found) == {("private-key", "leak")}, name
        assert name == "jwk" or re.fullmatch("[0-9a-f]{64}", found[0].key), name


def test_one_key_has_one_name_in_every_form() -> None:
    key = private_key()
    forms = [
        pem_of(key),
        pem_of(key, PrivateFormat.TraditionalOpenSSL),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ]
    assert len({walk_bytes(among(one), ())[0].key for one in forms}) == 1


def test_a_key_under_a_password_or_cut_off_is_shown_to_a_person() -> None:
    locked = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    old = private_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x"))
    for body in (locked, old, pem_of(private_key())[:-60]):
        assert tell(walk_bytes(among(body), ())) == {("private-key", "review")}


def test_what_only_looks_like_a_private_key_is_none() -> None:
    public = private_key().public_key()
    for body in (
        b"-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0",
        b"-----BEGIN RSA PRIVATE KEY-----\n%s\n",
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        bytes.fromhex("302e020100300506032b657004220420") + b"the text that follows a constant in a program",
        b"\x30\x77\x02\x01\x01\x04\x20" + noise(32),
        b'{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "BBBB"}',
    ):
        assert walk_bytes(among(body), ()) == []


def test_lab_anchors_and_keystores_are_found_by_name_and_content(tmp_path: Path) -> None:
    """T-629 Lab in the field: a production image that believes lab keys, or carries them."""
    anchors = b'realm = "lab"\nproduct = "camera"\n\n[board]\nattest = "sim"\nsim_chip = "../chip"\n'
    assert tell(walk_bytes(anchors, ())) == {("lab-key", "leak")}
    assert walk_bytes(b'realm = "lab"\n' * 3, ()) == []
    make_database(tmp_path / "any.name", {"realm": "lab"})
    assert tell(walk(tmp_path / "any.name", ())) == {("lab-key", "leak")}
    for path in (
        "oem/keys/symmetric.key",
        "keys/jobs/6a.key",
        "x/chip/otpmk",
        f"tee/{names.MP_SIGN}.ta",
    ):
        assert list(names.judge_name(path)), path
    for path in ("etc/keys/other.key", "usr/lib/mpagent/anchors.toml", "usr/lib/python3/site-packages/mpwire/mp.py"):
        assert list(names.judge_name(path)) == [], path
    assert list(names.judge_name("usr/lib/python3/site-packages/mpsim/cli.py"))


def test_the_layer_and_the_scanner_know_the_same_names() -> None:
    layer = runpy.run_path(str(ROOT / "yocto-layer/lib/mpagentlayer/production.py"))
    assert layer["MP_SIGN"] == names.MP_SIGN
    assert layer["NEVER_ON_A_DEVICE"].pattern == names.NEVER_ON_A_DEVICE.pattern


def test_the_layer_and_the_scanner_judge_a_conf_alike(tmp_path: Path) -> None:
    from mpserver.commands.scan import NO_ACCESS_CTRL, judge_conf

    layer = runpy.run_path(str(ROOT / "yocto-layer/lib/mpagentlayer/production.py"))
    assert layer["NO_ACCESS_CTRL"] == NO_ACCESS_CTRL
    for value in ("", "=y", "=n", "=", "=yes", " = y"):
        path = tmp_path / "conf.mk"
        path.write_text(f"CFG_NXP_CAAM=y\n{NO_ACCESS_CTRL + value if value else ''}\n")
        assert judge_conf(path.read_bytes()) == (layer["judge_optee"](str(path)) == []), value
