"""Appraising a Proof, as a numbered argument (docs/wire.md 4.3). Each step names the check that failed.

Nothing here touches the ledger. What a step returns is authentic from that step on, and not before.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from mpissuer.attesters import card, mp, optee, tpm
from mpissuer.challenge import check_challenge, check_not_expired
from mpissuer.checks import require, step
from mpissuer.endorsement import Endorsed
from mpissuer.errors import Again, ProductWrong, Refused
from mpissuer.heard import Heard
from mpissuer.policy import Product, read_version
from mpissuer.ports import Authority, Catalogue
from mpwire import labels, registry, tpm2
from mpwire.cose import Sign1, sig_structure, verify_es256
from mpwire.csr import read_csr
from mpwire.errors import Malformed, Unauthentic
from mpwire.evidence import read_inner, read_outer
from mpwire.limits import CHALLENGE_MAX_BYTES, HELLO_MAX_BYTES, PROOF_MAX_BYTES
from mpwire.messages.eat import Claims
from mpwire.messages.plain import CHALLENGE, HELLO, PROOF, Hello, Material, hash_key_attestation
from mpwire.ueid import HARDWARE_ID_OF_KIND, make_ueid

ATTESTERS: Final = {"mp": mp, "tpm": tpm, "card": card, "optee": optee}
"""By kind: its algorithm, the public material it needs, and its checks."""
HELLOS_KEPT: Final = 256
"""Hellos kept as read, at most 8 KiB each and as much again: those of a line that is at work."""


class Appraisal(NamedTuple):
    """What a Proof showed."""

    heard: Heard
    claims: Claims
    certificate_keys: Mapping[str, bytes]
    grade: str


def appraise(raw: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Appraisal:
    """Steps 3.10 to 3.37 in order. Raises Refused by the name of the first check that failed."""
    heard = take_apart(raw, authority, catalogue, now)  # 3.10, 3.12 to 3.15
    endorsed = check_attester(heard, authority, catalogue, now)  # 3.16 to 3.18
    with step("device-signature"):  # 3.19
        inner, claims = read_inner(heard.outer.payload)
        verify_es256(inner, claims.cnf.key, labels.AAD_EAT)
    check_binding(heard, claims, endorsed)  # 3.20 to 3.26
    certificate_keys = check_csrs(heard, claims)  # 3.27
    check_key_attestations(heard, claims)  # 3.28
    slots = sorted(slot.name for slot in heard.product.slots)
    require(
        sorted(claims.slots_wanted) == slots, "slots-wanted", f"image asks for {sorted(claims.slots_wanted)}"
    )  # 3.29
    check_not_expired(heard.challenge, now)  # 3.30
    grade = check_policy(heard.product, claims, endorsed, authority.realm)  # 3.31 to 3.37
    return Appraisal(heard, claims, certificate_keys, grade)


def take_apart(raw: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Heard:
    """3.10 to 3.15: the exchange this Proof belongs to."""
    proof = PROOF.decode(raw, PROOF_MAX_BYTES)
    hello = read_hello(proof.hello)
    challenge = CHALLENGE.decode(proof.challenge, CHALLENGE_MAX_BYTES)
    outer = read_outer(proof.evidence)
    check_challenge(proof.challenge, challenge, authority, now)  # 3.12
    answers = challenge.hello_hash == hashlib.sha256(proof.hello).digest()
    require(answers, "challenge-hello", "the challenge answers another hello")  # 3.13
    product = check_hello(hello, catalogue)  # 3.14, 3.15
    check_envelope(outer, hello.attester.kind, product)
    return Heard(proof, hello, challenge, outer, product)


@lru_cache(maxsize=HELLOS_KEPT)
def read_hello(raw: bytes) -> Hello:
    """Alone, and a moment later in its Proof. Raises Malformed."""
    return HELLO.decode(raw, HELLO_MAX_BYTES)


def check_hello(hello: Hello, catalogue: Catalogue) -> Product:
    """2.2 to 2.6: may such a board ask at all?"""
    if registry.WIRE_VERSION not in hello.versions:
        raise Refused("wire-version", f"device speaks {hello.versions}", again=Again.FINAL)
    product = catalogue.product(hello.product)
    if product is None:
        raise Refused("product", f"no product {hello.product!r}")
    require(hello.line is None, "line", "line credentials are not issued by this version, so none can be checked")
    require(
        hello.attester.kind in product.attesters, "attester", f"{hello.attester.kind} is not pinned for {product.name}"
    )
    # Before anything is signed: the signature itself would give the key away.
    is_burning = hello.attester.kind == "mp" and product.mp_use == "secret"
    require(not is_burning, "mp-use", f"the MP key of {product.name} must never sign: its boards are served by bundles")
    with step("attester-material"):
        check_material(hello.attester)
    return product


_ALWAYS: Final = frozenset({"kind", "attester_id"})


def check_material(one: Material) -> None:
    """2.6: complete for its kind and nothing else, and the id is recomputed from what is shown."""
    attester = ATTESTERS[one.kind]
    shown = {name for name in one._fields if getattr(one, name) is not None} - _ALWAYS
    if not attester.NEEDED <= shown <= attester.ALLOWED:
        raise Malformed(f"the public material does not fit an attester of kind {one.kind}")
    attester.check_material(one)


def check_envelope(outer: Sign1, kind: str, product: Product) -> None:
    """3.15: the algorithm and profile fit the kind of attester."""
    if outer.alg in registry.UNVERIFIED_ALGS:
        raise Refused(
            "profile-unverified", f"algorithm {outer.alg} is reserved: no vector of a real part exists for it"
        )
    require(outer.alg == ATTESTERS[kind].ALG, "evidence-alg", f"algorithm {outer.alg} is not that of {kind}")
    profile = outer.headers.get(registry.HEADER_PROFILE)
    if isinstance(profile, str) and profile in registry.UNVERIFIED_PROFILES:
        raise Refused("profile-unverified", f"profile {profile} is specified and made by nobody yet")
    require(profile == (product.profile if kind == "mp" else None), "profile", f"profile {profile!r}")


def check_attester(heard: Heard, authority: Authority, catalogue: Catalogue, now: int) -> Endorsed:
    """3.16 to 3.18: a known key made the outer signature, and what stands beside it is as the policy wants."""
    message = sig_structure(heard.outer.protected, labels.AAD_EVIDENCE, heard.outer.payload)
    match heard.material.kind:
        case "mp":
            return mp.check_mp(heard, message, catalogue)
        case "tpm":
            return tpm.check_tpm(heard, message, authority, catalogue, now)
        case "card":
            return card.check_card(heard, now)
        case _:
            return optee.check_optee(heard, message, catalogue)


def check_binding(heard: Heard, claims: Claims, endorsed: Endorsed) -> None:
    """3.20 to 3.26: the claims are about this exchange, this attester and this board."""
    require(claims.nonce == heard.challenge.nonce, "nonce", "the evidence answers another challenge's nonce")
    hello_hash = hashlib.sha256(heard.proof.hello).digest()
    require(claims.hello_hash == hello_hash, "hello-hash", "the evidence is about another hello")
    challenge_hash = hashlib.sha256(heard.proof.challenge).digest()
    require(claims.challenge_hash == challenge_hash, "challenge-hash", "the evidence is about another challenge")
    wrapped = claims.attester_id == heard.hello.attester.attester_id
    require(wrapped, "attester-id", "the claims were made beside another attester: re-wrapped evidence")
    require(_names_itself(heard, claims, endorsed), "ueid", "the ueid is not the one its hardware ids give")
    require(claims.realm == heard.product.realm, "realm", f"image of realm {claims.realm}")
    require(claims.product == heard.product.name, "product", f"image of product {claims.product!r}")


def _names_itself(heard: Heard, claims: Claims, endorsed: Endorsed) -> bool:
    kind = heard.material.kind
    hardware_id = claims.hardware_ids.get(HARDWARE_ID_OF_KIND[kind])
    if hardware_id is None or endorsed.hardware_id not in (None, hardware_id):
        return False
    with step("ueid"):
        family = _read_family(claims.hwmodel)
    return claims.ueid == heard.hello.ueid == make_ueid(kind, family, hardware_id)


def _read_family(hwmodel: bytes) -> str:
    try:
        return hwmodel.decode()
    except UnicodeDecodeError:
        raise Malformed("hwmodel is not UTF-8") from None


def check_csrs(heard: Heard, claims: Claims) -> dict[str, bytes]:
    """3.27: one CSR a certificate slot, hashed in the claims, self-signed, with a key of its own. Points by slot."""
    wanted = {slot.name for slot in heard.product.slots if slot.kind == "certificate"}
    require(heard.proof.csrs.keys() == wanted, "csr", f"requests for {sorted(heard.proof.csrs)}, not {sorted(wanted)}")
    hashes = {slot: hashlib.sha256(csr).digest() for slot, csr in heard.proof.csrs.items()}
    require(hashes == claims.csr_hashes, "csr", "a request is not the one the evidence hashes")
    with step("csr"):
        points = {slot: read_csr(csr) for slot, csr in heard.proof.csrs.items()}
    distinct = {claims.cnf.key, claims.kem_key, *points.values()}
    require(len(distinct) == len(points) + 2, "csr", "two uses share one key")
    return points


def check_key_attestations(heard: Heard, claims: Claims) -> None:
    """3.28: with a TPM, the enrollment keys live in the TPM of the AK; without one, nothing is claimed."""
    found = heard.proof.key_attestations
    wanted = {labels.DEVICE_SIGN: claims.cnf.key, labels.DEVICE_KEM: claims.kem_key}
    if heard.hello.attester.kind != "tpm":
        require(not found and not claims.key_attestation_hashes, "key-attestation", "only a TPM attests keys")
        return
    require(found.keys() == wanted.keys(), "key-attestation", "both enrollment keys must be certified by the AK")
    hashes = {label: hash_key_attestation(one) for label, one in found.items()}
    require(hashes == claims.key_attestation_hashes, "key-attestation", "not the ones the evidence hashes")
    assert heard.hello.attester.ak_public is not None  # check_hello looked
    ak = tpm2.read_public(heard.hello.attester.ak_public)
    qualifying = hashlib.sha256(heard.challenge.nonce).digest()
    with step("key-attestation"):
        for label, one in found.items():
            key = tpm2.verify_certify(one.attest, one.signature, ak.unique, qualifying, one.public)
            if key.unique != wanted[label]:
                raise Unauthentic(f"the certified {label} key is not the one in use")


def check_policy(product: Product, claims: Claims, endorsed: Endorsed, realm: str) -> str:
    """3.31 to 3.37: the product's rules; the attester grade that resulted."""
    simulated = endorsed.origin == "simulated"
    require(not (realm == "production" and simulated), "origin", "simulated silicon in a production realm")
    require(endorsed.mp_use == product.mp_use == "sign", "mp-use", "this MP key must never sign: mp_use is secret")
    if product.life_cycle == "closed":
        require(
            claims.life_cycle == 3, "life-cycle", f"the part says life cycle {claims.life_cycle}, policy wants closed"
        )
    if product.srk_hashes:
        require(claims.srk_hash in product.srk_hashes, "srk-hash", "the part's SRK hash is not on the list")
    _check_software(product, claims)
    grade = grade_of(endorsed, claims)
    require(grade in product.grades, "grade", f"grade {grade} is not accepted for {product.name}")
    _check_backends(product, claims, realm)
    return grade


def _check_backends(product: Product, claims: Claims, realm: str) -> None:
    """What the image made of the board: where its secrets and its device keys will lie."""
    is_simulated = realm == "production" and "sim" in claims.backends.values()
    require(not is_simulated, "backends", "simulated hardware in a production realm")
    for sort, allowed in (("seal", product.sealers), ("keys", product.keyrings)):
        used = claims.backends.get(sort)
        require(not allowed or used in allowed, "backends", f"{sort} by {used!r}, policy wants {', '.join(allowed)}")


def _check_software(product: Product, claims: Claims) -> None:
    if not any(product.minimum_software):
        return
    version = claims.swversion[0] if claims.swversion else "0"
    with step("software-version"):
        try:
            enough = read_version(version) >= product.minimum_software
        except ProductWrong as error:
            raise Malformed(str(error)) from error
        require(enough, "software-version", f"image {version} is below the minimum")


def grade_of(endorsed: Endorsed, claims: Claims) -> str:
    """S: genuine part and our boot chain; K: known key, software unproven; L: lab."""
    if endorsed.origin in ("simulated", "first-use") or claims.life_cycle in (1, 2, 4):
        return "L"
    return "S" if endorsed.kind == "mp" and claims.life_cycle == 3 else "K"
