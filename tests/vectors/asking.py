"""issuer.json: what a device may say, each with the one check of the issuer that must refuse it.

Beside the bytes a vector has `step` and `check` (docs/wire.md 4), and what differs from the issuer of world.json:
`policy` (members of the product), `issuer` (realm, now, registered, origin, mp_use, also: MP key ids registered
besides) and `books` (what the ledger knows: recall, nonce_used, owners, unit, job). `answer` names what is said
instead where nothing is refused. Every part made after a bent one is made over it, so that one check alone can fail.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from mpwire import labels, mp, p256, registry, tpm2
from mpwire.codec import decode, encode
from mpwire.messages.grant import SlotReceipt
from mpwire.messages.plain import CHALLENGE, HELLO, Material
from mpwire.ueid import make_ueid
from tests.vectors import attesters, cards, exchange, golden, rsa, world
from tests.vectors.exchange import Bent, speak
from tests.vectors.format import Vector, write_bytes

OTHER_UEID = make_ueid("mp", world.FAMILY, b"\x00" * 8)
PLAIN_SIGNING = tpm2.BORN_HERE | tpm2.Attributes.SIGN


def vectors() -> list[Vector]:
    """issuer.json."""
    parts = (
        _hellos,
        _exchange,
        _attesters,
        _cards,
        _optees,
        _quotes,
        _binding,
        _requests,
        _key_attestations,
        _policy,
        _books,
        _receipts,
    )
    return [one for part in parts for one in part()]


def _vector(name: str, message: str, step: str, check: str, raw: bytes, **world_differs: object) -> Vector:
    kind = (
        {"kind": "ok", "answer": check}
        if check in ("order", "challenge-said", "closed")
        else {"kind": "check", "check": check}
    )
    return {"name": name, "message": message, **kind, "step": step, **world_differs, "bytes": write_bytes(raw)}


def _proof(name: str, step: str, check: str, kind: str = "mp", bent: Bent | None = None, **differs: object) -> Vector:
    return _vector(name, "proof", step, check, speak(kind, bent).proof, **differs)


def _hello(name: str, step: str, check: str, kind: str, **changes: Any) -> Vector:
    return _vector(name, "hello", step, check, HELLO.encode(exchange.make_hello(kind)._replace(**changes)))


def _hellos() -> Iterator[Vector]:
    for kind in attesters.KINDS:
        yield _hello(f"hello of a {kind} board", "2.7", "challenge-said", kind)
    yield _vector("hello cut short", "hello", "2.1", "malformed", golden.MP.hello[:-1])
    yield _hello("hello in another version", "2.2", "wire-version", "mp", versions=(2, 3))
    burning = {"policy": {"mp_use": "secret"}}
    yield _vector("hello of a product kept for secrets", "hello", "2.5", "mp-use", golden.MP.hello, **burning)
    yield _hello("hello for a product nobody knows", "2.3", "product", "mp", product="no-such")
    yield _hello("hello with a line credential", "2.4", "line", "mp", line=(b"credential", bytes(64)))
    raw = golden.MP.hello
    yield _vector("hello by an attester not pinned", "hello", "2.5", "attester", raw, policy={"attesters": ["tpm"]})
    for kind in ("card", "optee"):
        raw, pinned = exchange.speak(kind).hello, {"policy": {"attesters": ["mp", "tpm"]}}
        yield _vector(f"hello by {kind} where it is not pinned", "hello", "2.5", "attester", raw, **pinned)
    for name, kind, attester in _materials():
        yield _hello(f"hello {name}", "2.6", "attester-material", kind, attester=attester)


def _materials() -> Iterator[tuple[str, str, Material]]:
    mp_one, tpm_one = exchange.material("mp"), exchange.material("tpm")
    ek_name, ak_name = tpm2.make_name(world.EK_PUBLIC), tpm2.make_name(world.AK_PUBLIC)
    yield "without a profile", "mp", mp_one._replace(profile=None)
    yield "with an id of another size", "mp", mp_one._replace(attester_id=bytes(68))
    yield "of mp with an EK", "mp", mp_one._replace(ek_public=world.EK_PUBLIC, ak_public=world.AK_PUBLIC)
    yield "of mp with certificates", "mp", mp_one._replace(x5chain=(b"0",))
    yield "without its AK", "tpm", tpm_one._replace(ak_public=None)
    yield "of tpm with a profile", "tpm", tpm_one._replace(profile="raw")
    yield "with the Names exchanged", "tpm", tpm_one._replace(attester_id=ak_name + ek_name)
    yield "with the EK as AK", "tpm", tpm_one._replace(ak_public=world.EK_PUBLIC, attester_id=ek_name + ek_name)
    free = tpm2.write_public(tpm2.Public(PLAIN_SIGNING, world.AK.public_key(), scheme=tpm2.ALG_ECDSA))
    yield (
        "with an AK that signs anything",
        "tpm",
        tpm_one._replace(ak_public=free, attester_id=ek_name + tpm2.make_name(free)),
    )
    wrong = tpm_one._replace(ek_public=world.AK_PUBLIC, attester_id=ak_name + ak_name)
    yield "with an AK as EK", "tpm", wrong
    yield from _other_materials()
    yield "with a public area cut short", "tpm", tpm_one._replace(ak_public=world.AK_PUBLIC[:-1])


def _other_materials() -> Iterator[tuple[str, str, Material]]:
    card, optee_one = exchange.material("card"), exchange.material("optee")
    yield "of card without certificates", "card", card._replace(x5chain=None)
    yield "of card with the id of another certificate", "card", card._replace(x5chain=card.x5chain[::-1])
    yield "of card with a key of OP-TEE", "card", card._replace(rsa_public=rsa.OPTEE.public)
    yield "of optee without its key", "optee", optee_one._replace(rsa_public=None)
    yield "of optee with another key", "optee", optee_one._replace(rsa_public=rsa.OTHER_OPTEE.public)
    yield "of optee with certificates", "optee", optee_one._replace(x5chain=card.x5chain)
    yield "of optee with a profile", "optee", optee_one._replace(profile="raw")
    point = p256.write_spki(world.OTHER.public_key())
    long = rsa.OPTEE.public + b"\x00"
    for what, public in (("a key of P-256", point), ("a key with a rest", long), ("no key", b"\x30\x00")):
        shown = optee_one._replace(rsa_public=public, attester_id=hashlib.sha256(public).digest())
        yield f"of optee with {what}", "optee", shown


def _exchange() -> Iterator[Vector]:
    for kind in attesters.KINDS:
        yield _proof(f"proof of a {kind} board", "3.48", "order", kind)
    yield _vector("proof cut short", "proof", "3.10", "malformed", golden.MP.proof[:-1])
    yield _proof("proof around an empty hello", "3.10", "malformed", bent=Bent(hello_sent=b"\xa0"))
    yield _proof("proof around no evidence", "3.10", "malformed", bent=Bent(proof={"evidence": b"\xd2\x80"}))
    yield _vector(
        "the same proof again", "proof", "3.11", "closed", golden.MP.proof, books={"recall": golden.CLOSED.hex()}
    )
    yield _proof("challenge that nobody said", "3.12", "challenge", bent=Bent(challenge_sent=_flip_mac))
    yield _proof("challenge changed under its MAC", "3.12", "challenge", bent=Bent(challenge_sent=_drop_claims))
    yield _proof(
        "challenge of another issuer",
        "3.12",
        "challenge",
        issuer={"symmetric_root": world.fill("other-root", 32).hex()},
    )
    old = Bent(challenge_time=world.NOW - 3 * world.DAY)
    yield _proof("challenge under a key of three days ago", "3.12", "challenge-expired", bent=old)
    early = Bent(challenge_time=world.NOW + 2 * world.DAY)
    yield _proof("challenge under a key to come", "3.12", "challenge-expired", bent=early)
    other = HELLO.encode(exchange.make_hello("mp")._replace(random=bytes(16)))
    yield _proof("challenge of another hello", "3.13", "challenge-hello", bent=Bent(hello_sent=other))
    yield _proof("proof in another version", "3.14", "wire-version", bent=Bent(hello={"versions": (2,)}))
    yield _proof("proof for a product nobody knows", "3.14", "product", bent=Bent(hello={"product": "no-such"}))
    line = Bent(hello={"line": (b"credential", bytes(64))})
    yield _proof("proof with a line credential", "3.14", "line", bent=line)
    yield _proof("proof by an attester not pinned", "3.15", "attester", policy={"attesters": ["tpm"]})
    bare = Bent(hello={"attester": exchange.material("mp")._replace(profile=None)})
    yield _proof("proof without a profile in its hello", "3.15", "attester-material", bent=bare)
    for alg in (registry.ALG_MP_ES384, registry.ALG_MP_ES512):
        yield _proof(f"evidence under {alg}", "3.15", "profile-unverified", bent=Bent(outer={"alg": alg}))
    yield _proof("evidence of mp under ES256", "3.15", "evidence-alg", bent=Bent(outer={"alg": registry.ALG_ES256}))
    yield _proof(
        "evidence of tpm under MP-ES256", "3.15", "evidence-alg", "tpm", Bent(outer={"alg": registry.ALG_MP_ES256})
    )
    yield _proof("evidence of card under MP-ES256", "3.15", "evidence-alg", "card", Bent(outer={"alg": -70001}))
    yield _proof("evidence of optee under ES256", "3.15", "evidence-alg", "optee", Bent(outer={"alg": -7}))
    relay = Bent(outer={"profile": "relay/1"})
    yield _proof("evidence of the profile that nobody makes yet", "3.15", "profile-unverified", bent=relay)
    yield _proof("evidence of card with a profile", "3.15", "profile", "card", Bent(outer={"profile": "raw"}))
    yield _proof("evidence of optee with a profile", "3.15", "profile", "optee", Bent(outer={"profile": "raw"}))
    yield _proof("evidence of a profile not pinned", "3.15", "profile", policy={"profile": "relay/1"})
    yield _proof("evidence of mp without a profile", "3.15", "profile", bent=Bent(outer={"profile": None}))
    yield _proof("evidence of tpm with a profile", "3.15", "profile", "tpm", Bent(outer={"profile": "raw"}))


def _flip_mac(raw: bytes) -> bytes:
    challenge = CHALLENGE.decode(raw, len(raw))
    return CHALLENGE.encode(challenge._replace(nonce=challenge.nonce[:-1] + bytes([challenge.nonce[-1] ^ 1])))


def _drop_claims(raw: bytes) -> bytes:
    return CHALLENGE.encode(CHALLENGE.decode(raw, len(raw))._replace(claims=()))


def _bend_evidence(change: Callable[[list[Any]], list[Any]], kind: str = "mp") -> Bent:
    """Golden evidence with the four parts of its envelope changed after it was signed."""
    tagged: Any = decode(exchange.speak(kind).evidence)
    return Bent(proof={"evidence": b"\xd2" + encode(change(tagged.value))})


def _attesters() -> Iterator[Vector]:
    key, signature = "attester-key", "attester-signature"
    yield _proof("mp key nobody imported", "3.16", key, issuer={"registered": False})
    yield _proof("mp key of another product", "3.16", key, policy={"mp_keys": []})
    yield _proof("evidence by another mp key", "3.17", signature, bent=Bent(attest_key=world.OTHER))
    other = {registry.HEADER_MPMR: mp.MPMR_ZERO}
    yield _proof(
        "evidence with its mpmr exchanged",
        "3.17",
        signature,
        bent=_bend_evidence(lambda one: [one[0], other, *one[2:]]),
    )
    zeros = _bend_evidence(lambda one: [*one[:3], bytes(64)])
    yield _proof("evidence with the zeros of a failed call", "3.17", signature, bent=zeros)
    both = {registry.HEADER_MPMR: mp.MPMR_OPTEE, registry.HEADER_ATTEST_PCRS: []}
    yield _proof("evidence of both kinds", "3.17", signature, bent=_bend_evidence(lambda one: [one[0], both, *one[2:]]))
    other_inner = exchange.make_inner(exchange.make_claims("mp", b"", golden.MP.challenge, {}, {}), world.OTHER)
    swapped = _bend_evidence(lambda one: [*one[:2], other_inner, one[3]])
    yield _proof("evidence around another inner one", "3.17", signature, bent=swapped)
    yield _proof("evidence of a boot chain not listed", "3.18", "mpmr", bent=Bent(outer={"mpmr": mp.MPMR_ZERO}))
    yield _proof("ek nobody listed", "3.16", "ek", "tpm", policy={"eks": []})
    foreign = {"ek_certificate": exchange.device_certificate()}
    shown = Bent(hello={"attester": exchange.material("tpm")._replace(**foreign)})
    yield _proof("ek certificate without a pinned root", "3.16", "ek", "tpm", shown, policy={"eks": []})
    yield _proof("no activation", "3.18", "activation", "tpm", Bent(proof={"activation": None}))
    yield _proof("activation by guess", "3.18", "activation", "tpm", Bent(proof={"activation": bytes(32)}))
    yield _proof("inner evidence by another key", "3.19", "device-signature", bent=Bent(sign_key=world.OTHER))
    yield _proof("inner evidence of tpm by another key", "3.19", "device-signature", "tpm", Bent(sign_key=world.OTHER))


def _cards() -> Iterator[Vector]:
    path, signature = "card-certificate", "attester-signature"
    yield _proof("card where no root is pinned", "3.16", path, "card", policy={"card_roots": []})
    for what, chain in cards.wrong_chains().items():
        shown = exchange.material("card")._replace(x5chain=chain, attester_id=hashlib.sha256(chain[0]).digest())
        bent = Bent(hello={"attester": shown}, claims={"attester_id": shown.attester_id})
        yield _proof(f"card certificate {what}", "3.16", path, "card", bent)
    yield _proof("evidence by another card", "3.17", signature, "card", Bent(attest_key=world.OTHER))
    beside = Bent(outer={"beside": {registry.HEADER_MPMR: mp.MPMR_OPTEE}})
    yield _proof("evidence of card with an mpmr", "3.17", signature, "card", beside)
    renewed = cards.der(cards.certify("card 1 renewed", cards.CARD, "card authority", cards.BETWEEN_KEY))
    shown = exchange.material("card")._replace(
        x5chain=(renewed, cards.BETWEEN), attester_id=hashlib.sha256(renewed).digest()
    )
    bent = Bent(hello={"attester": shown}, claims={"attester_id": shown.attester_id})
    yield _proof("card with a renewed certificate keeps its name", "3.48", "order", "card", bent)
    name = bytes(32)
    named = {"hardware_ids": {"card-key": name}, "ueid": make_ueid("card", world.FAMILY, name)}
    stolen = Bent(claims=named, hello={"ueid": named["ueid"]})
    yield _proof("claims of another card than its certificate's", "3.24", "ueid", "card", stolen)
    yield _proof("card where the product wants S", "3.36", "grade", "card", policy={"grades": ["S"]})
    attested = Bent(attestation={"sign": exchange.certify_key(world.SIGN_PUBLIC, bytes(60))})
    yield _proof("key attestation of a card board", "3.28", "key-attestation", "card", attested)


def _optees() -> Iterator[Vector]:
    key, signature = "attester-key", "attester-signature"
    yield _proof("attestation key nobody imported", "3.16", key, "optee", issuer={"registered": False})
    yield _proof("attestation key of another product", "3.16", key, "optee", policy={"optee_keys": []})
    imported = {"optee_rule": "imported", "optee_keys": []}
    yield _proof("attestation key imported", "3.48", "order", "optee", policy=imported)
    unknown = {"issuer": {"registered": False}}
    yield _proof("unknown key where the imported are taken", "3.16", key, "optee", policy=imported, **unknown)
    first = {"optee_rule": "first-use", "optee_keys": []}
    yield _proof("unknown key on first use is no K", "3.36", "grade", "optee", policy=first, **unknown)
    lab = {**first, "grades": ["L"]}
    yield _proof("unknown key on first use in a lab", "3.48", "order", "optee", policy=lab, **unknown)
    for what, key_or_outer in (
        ("by another key", {"attest_key": rsa.OTHER_OPTEE}),
        ("over another nonce", {"outer": {"nonce": bytes(32)}}),
        ("told beside another measurement", {"outer": {"told": bytes(32)}}),
        ("hashed twice", {"outer": {"hashed": lambda one: hashlib.sha256(one).digest()}}),
        ("with another salt", {"outer": {"salt_bytes": 20}}),
    ):
        yield _proof(f"attestation {what}", "3.17", signature, "optee", Bent(**key_or_outer))
    bare = _bend_evidence(lambda one: [*one[:3], bytes(64)], "optee")
    yield _proof("attestation that is r || s", "3.17", signature, "optee", bare)
    other = Bent(outer={"measurement": bytes(32)})
    yield _proof("another OP-TEE than listed", "3.18", "measurement", "optee", other)
    yield _proof("no OP-TEE listed", "3.18", "measurement", "optee", policy={"optee_measurements": []})
    loose = {"optee_measurements": None}
    yield _proof("any OP-TEE where the product says so", "3.48", "order", "optee", other, policy=loose)
    name = bytes(32)
    named = {"hardware_ids": {"optee-key": name}, "ueid": make_ueid("optee", world.FAMILY, name)}
    stolen = Bent(claims=named, hello={"ueid": named["ueid"]})
    yield _proof("claims of another key than the attestation's", "3.24", "ueid", "optee", stolen)
    mixed = Bent(claims={"hardware_ids": {"imx-uid": exchange.hardware_ids("optee")["imx-uid"]}})
    yield _proof("claims of optee without its key", "3.24", "ueid", "optee", mixed)
    production = {"policy": {"realm": "production"}, "issuer": {"realm": "production", "origin": "simulated"}}
    board = Bent(claims={"realm": "production"})
    yield _proof("simulated OP-TEE in production", "3.31", "origin", "optee", board, **production)


def _quotes() -> Iterator[Vector]:
    def bent(name: str, **outer: object) -> Vector:
        return _proof(f"quote {name}", "3.17", "attester-signature", "tpm", Bent(outer=outer))

    yield _proof("quote by another key", "3.17", "attester-signature", "tpm", Bent(attest_key=world.OTHER))
    yield bent("over other evidence", extra_data=bytes(32))
    yield bent(
        "that is a certification",
        attested=tpm2.Certify(tpm2.make_name(world.AK_PUBLIC), tpm2.make_name(world.EK_PUBLIC)),
    )
    yield bent("of other PCR values", attested=tpm2.Quote(tuple(index for index, _ in world.PCRS), bytes(32)))
    yield bent("of no PCR", attested=tpm2.Quote((), tpm2.digest_pcrs([])))
    yield bent("with one PCR told otherwise", pcrs=((0, bytes(32)), *world.PCRS[1:]))
    yield bent("with one PCR not told", pcrs=world.PCRS[1:])
    yield bent("with PCRs told in another order", pcrs=world.PCRS[::-1])


def _binding() -> Iterator[Vector]:
    def bent(name: str, step: str, check: str, kind: str = "mp", **claims: object) -> Vector:
        return _proof(f"claims {name}", step, check, kind, Bent(claims=claims))

    yield bent("with another nonce", "3.20", "nonce", nonce=world.fill("other-nonce", 60))
    yield bent("about another hello", "3.21", "hello-hash", hello_hash=bytes(32))
    yield bent("about another challenge", "3.22", "challenge-hash", challenge_hash=bytes(32))
    other = mp.key_id(world.OTHER.public_key())
    rewrapped = Bent(
        hello={"attester": exchange.material("mp")._replace(attester_id=other)},
        attest_key=world.OTHER,
    )
    known = {
        "policy": {"mp_keys": [other.hex()]},
        "issuer": {"registered": {other.hex(): world.OTHER.public_key().hex()}},
    }
    yield _proof("re-wrapped by another registered attester", "3.23", "attester-id", bent=rewrapped, **known)
    yield bent("of another attester", "3.23", "attester-id", attester_id=bytes(32))
    yield bent("of another ueid", "3.24", "ueid", ueid=OTHER_UEID)
    yield bent("of another hardware id", "3.24", "ueid", hardware_ids={"imx-uid": bytes(8)})
    yield bent("of no hardware id", "3.24", "ueid", hardware_ids={})
    yield bent("of another SoC family", "3.24", "ueid", hwmodel=b"imx8mp")
    yield bent("of a family that is no text", "3.24", "ueid", hwmodel=b"\xff")
    yield _proof("hello of another ueid", "3.24", "ueid", bent=Bent(hello={"ueid": OTHER_UEID}))
    name = b"\x00\x0b" + bytes(32)
    named = {"hardware_ids": {"tpm-ek": name}, "ueid": make_ueid("tpm", world.FAMILY, name)}
    yield bent("of another tpm than its EK", "3.24", "ueid", "tpm", **named)
    yield bent("of a production image", "3.25", "realm", realm="production")
    yield bent("of another product's image", "3.26", "product", product="other")


def _requests() -> Iterator[Vector]:
    def bent(name: str, claims: dict[str, object] | None = None, **csrs: bytes | None) -> Vector:
        return _proof(f"request {name}", "3.27", "csr", bent=Bent(csrs=csrs, claims=claims or {}))

    good = exchange.make_csrs()[exchange.CERTIFICATE_SLOT]
    yield bent("missing", idevid=None)
    yield bent("for a slot that is none", other=good)
    yield bent("that the evidence does not hash", {"csr_hashes": {"idevid": bytes(32)}})
    yield bent("with a broken self-signature", idevid=good[:-1] + bytes([good[-1] ^ 1]))
    yield bent("for the sign key", idevid=exchange.csr_by(world.DEVICE_SIGN))
    yield bent("for the kem key", idevid=exchange.csr_by(world.DEVICE_KEM))
    yield bent("that is no DER", idevid=b"\x30\x80\x00\x00")
    yield bent("that is a certificate", idevid=exchange.device_certificate())


def _key_attestations() -> Iterator[Vector]:
    nonce = CHALLENGE.decode(golden.TPM.challenge, len(golden.TPM.challenge)).nonce
    sign = exchange.certify_key(world.SIGN_PUBLIC, nonce)
    quote = tpm2.Quote((0,), tpm2.digest_pcrs([bytes(32)]))
    movable = tpm2.write_public(tpm2.Public(tpm2.Attributes.SIGN, world.DEVICE_SIGN.public_key()))
    other = tpm2.write_public(tpm2.Public(PLAIN_SIGNING, world.OTHER.public_key()))

    def bent(name: str, claims: dict[str, object] | None = None, **keys: Any) -> Vector:
        made = Bent(attestation=keys, claims=claims or {})
        return _proof(f"key attestation {name}", "3.28", "key-attestation", "tpm", made)

    yield bent("of kem missing", kem=None)
    yield bent("of a key too many", other=sign)
    yield bent("that the evidence does not hash", {"key_attestation_hashes": {}})
    yield bent("of another exchange", sign=exchange.certify_key(world.SIGN_PUBLIC, b"another nonce"))
    yield bent("by another key than the AK", sign=exchange.certify_key(world.SIGN_PUBLIC, nonce, key=world.OTHER))
    yield bent("that is a quote", sign=exchange.certify_key(world.SIGN_PUBLIC, nonce, bend={"attested": quote}))
    yield bent("of another public area than shown", sign=sign._replace(public=world.KEM_PUBLIC))
    yield bent("of a key that may leave its TPM", sign=exchange.certify_key(movable, nonce))
    yield bent("of another key than cnf", sign=exchange.certify_key(other, nonce))
    yield bent("with sign and kem exchanged", sign=exchange.certify_key(world.KEM_PUBLIC, nonce), kem=sign)
    claimed = Bent(attestation={"sign": sign})
    yield _proof("key attestation of an mp board", "3.28", "key-attestation", "mp", claimed)
    wanted = Bent(claims={"slots_wanted": exchange.SLOTS[:-1]})
    yield _proof("a slot not asked for", "3.29", "slots-wanted", bent=wanted)
    wanted = Bent(claims={"slots_wanted": (*exchange.SLOTS, "other")})
    yield _proof("a slot too many asked for", "3.29", "slots-wanted", bent=wanted)
    late = Bent(challenge_time=world.NOW - 601)
    yield _proof("challenge expired a second ago", "3.30", "challenge-expired", bent=late)
    yield _proof("challenge at its last second", "3.48", "order", bent=Bent(challenge_time=world.NOW - 600))


def _policy() -> Iterator[Vector]:
    def bent(name: str, step: str, check: str, policy: dict[str, object] | None = None, **claims: object) -> Vector:
        return _proof(name, step, check, "mp", Bent(claims=claims), **({"policy": policy} if policy else {}))

    production = {"policy": {"realm": "production"}, "issuer": {"realm": "production", "origin": "simulated"}}
    board = Bent(claims={"realm": "production"})
    yield _proof("simulated silicon in production", "3.31", "origin", bent=board, **production)
    yield _proof("mp key kept for secrets", "3.32", "mp-use", issuer={"mp_use": "secret"})
    yield bent("product kept for secrets", "3.15", "mp-use", {"mp_use": "secret"})
    for value, words in (
        (1, "open"),
        (2, "closed but not rebooted"),
        (4, "in field return"),
        (None, "of unknown life cycle"),
    ):
        yield bent(f"part {words}", "3.33", "life-cycle", life_cycle=value)
    yield bent("part of another SRK", "3.34", "srk-hash", srk_hash=bytes(32))
    yield bent("part of unknown SRK", "3.34", "srk-hash", srk_hash=None)
    old = "software-version"
    yield bent("image too old", "3.35", old, swversion=("1.3.9",))
    yield bent("image compared as text", "3.35", old, {"minimum_software": [1, 10]}, swversion=("1.9.0",))
    yield bent("image of unknown version", "3.35", old, swversion=None)
    yield bent("image of a version that is none", "3.35", old, swversion=("1.4.2-dirty",))
    yield bent("sealer the product does not list", "3.37", "backends", {"sealers": ["optee", "tpm"]})
    yield bent("keyring the product does not list", "3.37", "backends", {"keyrings": ["tpm"]})
    yield bent("no sealer where the product lists some", "3.37", "backends", {"sealers": ["caam"]}, backends={})
    listed = {"sealers": ["tpm", "caam"], "keyrings": ["sealed"]}
    yield bent("sealer and keyring that the product lists", "3.48", "order", listed)
    yield bent("grade below the product's", "3.36", "grade", {"grades": ["K"]})
    yield _proof("tpm where the product wants S", "3.36", "grade", "tpm", policy={"grades": ["S"]})
    yield _proof("simulated silicon where the lab wants S", "3.36", "grade", issuer={"origin": "simulated"})
    yield bent(
        "open part under a policy that takes it", "3.48", "order", {"life_cycle": "any", "grades": ["L"]}, life_cycle=1
    )


def _books() -> Iterator[Vector]:
    def bent(name: str, step: str, check: str, **books: object) -> Vector:
        return _vector(name, "proof", step, check, golden.MP.proof, books=books)

    unit = {"state": "granted", "sign_key": world.DEVICE_SIGN.public_key().hex()}
    yield bent("proof booked meanwhile", "3.40", "closed", booked=golden.CLOSED.hex())
    yield bent("nonce answered before", "3.41", "nonce-used", nonce_used=True)
    for kind in ("imx-uid", "device-key"):
        yield bent(f"{kind} of another unit", "3.42", "clone", owners={kind: OTHER_UEID.hex()})
    stranger = {**unit, "sign_key": world.OTHER.public_key().hex()}
    yield bent("known unit with another device key", "3.42", "clone", unit=stranger)
    closed = {**unit, "state": "provisioned", "closed": golden.CLOSED.hex()}
    yield bent(
        "closed unit with another device key", "3.42", "clone", unit={**closed, "sign_key": stranger["sign_key"]}
    )
    yield bent("unit closed before", "3.43", "closed", unit=closed)
    yield bent("unit scrapped", "3.44", "scrapped", unit={**unit, "state": "scrapped"})
    yield bent("unit given values of other slots", "3.44", "allocation", unit=unit, values={"cloud": 7})
    yield bent("no job open", "3.45", "job", job=None)
    yield bent("job full", "3.46", "quota", job={"quota": 4, "granted": 4, "state": "exhausted"})
    yield bent("job full though still called open", "3.46", "quota", job={"quota": 4, "granted": 4, "state": "open"})
    yield bent("last board of the job", "3.48", "order", job={"quota": 4, "granted": 3, "state": "open"})


def _receipts() -> Iterator[Vector]:
    def bent(name: str, step: str, check: str, books: dict[str, object] | None = None, **changes: object) -> Vector:
        raw = exchange.make_receipt(golden.GRANT, bend=changes)
        return _vector(f"receipt {name}", "receipt", step, check, raw, books={"unit": unit, **(books or {})})

    unit = {"state": "granted", "sign_key": world.DEVICE_SIGN.public_key().hex()}
    slots = exchange.make_receipt_slots()
    slots_wrong, closed_wrong = "receipt-slots", "receipt-closed-proof"
    yield bent("of a sealed board", "5.8", "order")
    yield _vector("receipt cut short", "receipt", "5.1", "malformed", golden.RECEIPT[:-1])
    yield _vector("receipt under another label", "receipt", "5.3", "receipt-signature", _relabelled())
    yield bent("for a grant nobody stored", "5.2", "grant-unknown", grant_digest=bytes(32))
    forged = exchange.make_receipt(golden.GRANT, key=world.OTHER)
    yield _vector("receipt by another key", "receipt", "5.3", "receipt-signature", forged)
    yield bent("of another board", "5.4", "receipt-ueid", ueid=OTHER_UEID)
    yield bent("without a slot", "5.5", slots_wrong, slots=slots[:-1])
    yield bent("with a slot too many", "5.5", slots_wrong, slots=(*slots, SlotReceipt("other", "sim", 1, bytes(16))))
    yield bent("with a slot twice", "5.5", slots_wrong, slots=(*slots, slots[0]))
    yield bent("with an older version", "5.5", slots_wrong, slots=(*slots[:2], slots[2]._replace(version=1), slots[3]))
    yield bent("without the escrow", "5.5", "receipt-escrow", escrow=None)
    spare = {**exchange.make_escrow(), "api-key": (bytes(65), bytes(48))}
    yield bent("with an escrow nobody asked for", "5.5", "receipt-escrow", escrow=spare)
    yield bent(
        "of another value", "5.6", "check-value", slots=(slots[0], slots[1]._replace(check=bytes(16)), *slots[2:])
    )
    yield bent("that proves nothing closed", "5.7", closed_wrong, closed_proof="none")
    yield bent("of an open part", "5.7", closed_wrong, life_cycle=1)
    yield bent("of unknown life cycle", "5.7", closed_wrong, life_cycle=None)
    yield bent("of a unit that is gone", "5.8", "receipt-unit", {"unit": None})
    reworked = {"unit": {**unit, "sign_key": world.OTHER.public_key().hex()}}
    yield bent("of a unit reworked since", "5.8", "receipt-unit", reworked)
    closed = {"unit": {**unit, "state": "provisioned", "closed": golden.CLOSED.hex()}}
    yield bent("said again", "5.8", "closed", closed)
    yield bent("other than the one that closed it", "5.8", "receipt-other", closed, rollback="tpm-nv")
    yield bent("of a production image", "5.9", "order", closed, phase="final")
    yield bent("of a production image whose board sealed nothing", "5.9", "receipt-unfinished", phase="final")
    ended = {"unit": {**closed["unit"], "final": golden.CLOSED.hex()}}
    yield bent("of a production image, another one", "5.9", "receipt-other", ended, phase="final")


def _relabelled() -> bytes:
    """A Receipt signed as an EAT would be: the device key signs both."""
    tagged: Any = decode(golden.RECEIPT)
    protected, _, payload, _ = tagged.value
    return exchange.resign(protected, payload, labels.AAD_EAT, world.DEVICE_SIGN)
