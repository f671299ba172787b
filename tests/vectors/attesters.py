"""The board of the fixed world under each kind of attester: what it shows of itself, and how it signs."""

import hashlib
from typing import Any, Final

from mpwire import labels, mp, optee, registry, tpm2
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure
from mpwire.evidence import outer_headers, write_optee_signature, write_tpm_signature
from mpwire.messages.plain import Material
from mpwire.ueid import HARDWARE_ID_OF_KIND, make_ueid, name_card_key
from tests.vectors import cards, rsa, world

UID: Final = bytes.fromhex("1a2b3c4d5e6f7081")
KINDS: Final = ("mp", "tpm", "card", "optee")
ALGS: Final = {
    "mp": registry.ALG_MP_ES256,
    "tpm": registry.ALG_TPM_QUOTE_ES256,
    "card": registry.ALG_ES256,
    "optee": registry.ALG_OPTEE_PS256,
}


def attester_id(kind: str) -> bytes:
    """As Hello and EAT carry it."""
    match kind:
        case "mp":
            return mp.key_id(world.MP.public_key())
        case "tpm":
            return tpm2.make_name(world.EK_PUBLIC) + tpm2.make_name(world.AK_PUBLIC)
        case "card":
            return hashlib.sha256(cards.CERTIFICATE).digest()
    return optee.key_id(rsa.OPTEE.public)


def hardware_ids(kind: str) -> dict[str, bytes]:
    """Every id of the board the vectors are about."""
    own = {
        "mp": {},
        "tpm": {"tpm-ek": tpm2.make_name(world.EK_PUBLIC)},
        "card": {"card-key": name_card_key(cards.CARD.public_key())},
        "optee": {"optee-key": optee.key_id(rsa.OPTEE.public)},
    }
    return {"imx-uid": UID, **own[kind]}


def ueid(kind: str) -> bytes:
    """Name of that board."""
    return make_ueid(kind, world.FAMILY, hardware_ids(kind)[HARDWARE_ID_OF_KIND[kind]])


def material(kind: str) -> Material:
    """Its attester."""
    shown: dict[str, dict[str, Any]] = {
        "mp": {"profile": "raw"},
        "tpm": {"ek_public": world.EK_PUBLIC, "ak_public": world.AK_PUBLIC},
        "card": {"x5chain": cards.CHAIN},
        "optee": {"rsa_public": rsa.OPTEE.public},
    }
    return Material(kind, attester_id(kind), **shown[kind])


def make_outer(kind: str, inner: bytes, key: Any = None, bend: dict[str, Any] | None = None) -> bytes:
    """The attester's envelope over the device key's. `key` signs instead of the attester's own."""
    given = dict(bend or {})
    profile = given.pop("profile", "raw" if kind == "mp" else None)
    protected = encode(outer_headers(given.pop("alg", ALGS[kind]), profile))
    message = sig_structure(protected, labels.AAD_EVIDENCE, inner)
    if kind == "card":
        return join_sign1(protected, given.pop("beside", {}), inner, (key or cards.CARD).sign(message))
    sign = {"mp": _sign_mp, "tpm": _sign_tpm, "optee": _sign_optee}[kind]
    signature, beside = sign(message, key, given)
    return join_sign1(protected, beside, inner, signature)


def _sign_mp(message: bytes, key: Any, given: dict[str, Any]) -> tuple[bytes, dict[int, object]]:
    mpmr = given.pop("mpmr", mp.MPMR_OPTEE)
    return (key or world.MP).sign_digest(mp.digest(message, mpmr)), {registry.HEADER_MPMR: mpmr}


def _sign_tpm(message: bytes, key: Any, given: dict[str, Any]) -> tuple[bytes, dict[int, object]]:
    told = [[index, one] for index, one in given.pop("pcrs", world.PCRS)]
    quote = tpm2.Quote(tuple(index for index, _ in world.PCRS), tpm2.digest_pcrs([one for _, one in world.PCRS]))
    attested = {"extra_data": hashlib.sha256(message).digest(), "attested": quote, **given}
    made = tpm2.Attest(tpm2.make_name(world.AK_PUBLIC), clock=world.CLOCK, firmware_version=1, **attested)
    attest = tpm2.write_attest(made)
    return write_tpm_signature(attest, (key or world.AK).sign(attest)), {registry.HEADER_ATTEST_PCRS: told}


def _sign_optee(message: bytes, key: Any, given: dict[str, Any]) -> tuple[bytes, dict[int, object]]:
    """`measurement` is signed and told, `told` is told instead; `hashed` bends the digest, the rest is as named."""
    measurement = given.pop("measurement", rsa.MEASUREMENT)
    nonce = given.pop("nonce", optee.make_nonce(message))
    digest = given.pop("hashed", lambda one: one)(hashlib.sha256(nonce + measurement).digest())
    signature = (key or rsa.OPTEE).sign_digest(digest, given.pop("salt_bytes", 32))
    return write_optee_signature(given.pop("told", measurement), signature), {}
