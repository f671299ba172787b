"""Appraising a Proof, as a numbered argument (docs/wire.md 4.3). Each step names the check that failed.

Nothing here touches the ledger. What a step returns is authentic from that step on, and not before.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from mpissuer.challenge import check_challenge, check_not_expired, derive_credential_secret
from mpissuer.endorsement import Endorsed, check_ek
from mpissuer.errors import Again, ProductWrong, Refused
from mpissuer.policy import Product, read_version
from mpissuer.ports import Authority, Catalogue
from mpwire import labels, mp, registry, tpm2
from mpwire.cose import Sign1, sig_structure, verify_es256
from mpwire.csr import read_csr
from mpwire.errors import Malformed, Unauthentic
from mpwire.evidence import read_inner, read_mpmr, read_outer, read_quote
from mpwire.limits import CHALLENGE_MAX_BYTES, HELLO_MAX_BYTES, PROOF_MAX_BYTES
from mpwire.messages.eat import Claims
from mpwire.messages.plain import CHALLENGE, HELLO, PROOF, Challenge, Hello, Proof, hash_key_attestation
from mpwire.ueid import HARDWARE_ID_OF_KIND, TPM_NAME_BYTES, make_ueid

ALG_OF_KIND = {"mp": registry.ALG_MP_ES256, "tpm": registry.ALG_TPM_QUOTE_ES256}


class step:
    """Names the check inside it: a malformed or unauthentic part becomes Refused by that name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Malformed | Unauthentic):
            raise Refused(self.name, str(error)) from error


def require(holds: bool, check: str, detail: str) -> None:
    """Raises Refused(check) unless it holds."""
    if not holds:
        raise Refused(check, detail)


@dataclass(frozen=True, slots=True)
class Heard:
    """A Proof taken apart; nothing of it is authentic yet but that this issuer said the Challenge."""

    proof: Proof
    hello: Hello
    challenge: Challenge
    outer: Sign1
    product: Product


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a Proof showed."""

    heard: Heard
    claims: Claims
    certificate_keys: Mapping[str, bytes]
    grade: str


def appraise(raw: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Appraisal:
    """Steps 3.10 to 3.36 in order. Raises Refused by the name of the first check that failed."""
    heard = take_apart(raw, authority, catalogue, now)  # 3.10, 3.12 to 3.15
    endorsed = check_attester(heard, authority, catalogue, now)  # 3.16 to 3.18
    with step("device-signature"):  # 3.19
        inner, claims = read_inner(heard.outer.payload)
        verify_es256(inner, claims.cnf.key, labels.AAD_EAT)
    check_binding(heard, claims)  # 3.20 to 3.26
    certificate_keys = check_csrs(heard, claims)  # 3.27
    check_key_attestations(heard, claims)  # 3.28
    slots = sorted(slot.name for slot in heard.product.slots)
    require(
        sorted(claims.slots_wanted) == slots, "slots-wanted", f"image asks for {sorted(claims.slots_wanted)}"
    )  # 3.29
    check_not_expired(heard.challenge, now)  # 3.30
    grade = check_policy(heard.product, claims, endorsed, authority.realm)  # 3.31 to 3.36
    return Appraisal(heard, claims, certificate_keys, grade)


def take_apart(raw: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Heard:
    """3.10 to 3.15: the exchange this Proof belongs to."""
    proof = PROOF.decode(raw, PROOF_MAX_BYTES)
    hello = HELLO.decode(proof.hello, HELLO_MAX_BYTES)
    challenge = CHALLENGE.decode(proof.challenge, CHALLENGE_MAX_BYTES)
    outer = read_outer(proof.evidence)
    check_challenge(proof.challenge, challenge, authority, now)  # 3.12
    answers = challenge.hello_hash == hashlib.sha256(proof.hello).digest()
    require(answers, "challenge-hello", "the challenge answers another hello")  # 3.13
    product = check_hello(hello, catalogue)  # 3.14, 3.15
    check_envelope(outer, hello.attester.kind, product)
    return Heard(proof, hello, challenge, outer, product)


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
    with step("attester-material"):
        _check_material(hello)
    return product


def _check_material(hello: Hello) -> None:
    """2.6: complete for its kind, and the id is recomputed from what is shown."""
    one = hello.attester
    of_tpm = (one.ek_public, one.ak_public) if one.kind == "tpm" else ()
    foreign = (one.x5chain,) if one.kind == "tpm" else (one.x5chain, one.ek_public, one.ak_public, one.ek_certificate)
    fits = all(part is not None for part in of_tpm) and all(part is None for part in foreign)
    if not fits or (one.profile is not None) != (one.kind == "mp"):
        raise Malformed(f"the public material does not fit an attester of kind {one.kind}")
    if one.kind == "mp" and len(one.attester_id) != 32:
        raise Malformed("an mp attester-id has 32 bytes")
    if one.kind == "tpm":
        assert one.ek_public is not None and one.ak_public is not None  # of_tpm
        tpm2.check_ak(tpm2.read_public(one.ak_public))
        tpm2.check_ek(tpm2.read_public(one.ek_public))
        if one.attester_id != tpm2.make_name(one.ek_public) + tpm2.make_name(one.ak_public):
            raise Malformed("the attester-id is not EK Name || AK Name")


def check_envelope(outer: Sign1, kind: str, product: Product) -> None:
    """3.15: the algorithm and profile fit the kind of attester."""
    if outer.alg in registry.UNVERIFIED_ALGS:
        raise Refused(
            "profile-unverified", f"algorithm {outer.alg} is reserved: no vector of a real part exists for it"
        )
    require(outer.alg == ALG_OF_KIND[kind], "evidence-alg", f"algorithm {outer.alg} is not that of {kind}")
    profile = outer.headers.get(registry.HEADER_PROFILE)
    require(profile == (product.profile if kind == "mp" else None), "profile", f"profile {profile!r}")


def check_attester(heard: Heard, authority: Authority, catalogue: Catalogue, now: int) -> Endorsed:
    """3.16 to 3.18: a known key made the outer signature, and what stands beside it is as the policy wants."""
    message = sig_structure(heard.outer.protected, labels.AAD_EVIDENCE, heard.outer.payload)
    if heard.hello.attester.kind == "mp":
        return _check_mp(heard, message, catalogue)
    return _check_tpm(heard, message, authority, catalogue, now)


def _check_mp(heard: Heard, message: bytes, catalogue: Catalogue) -> Endorsed:
    key_id = heard.hello.attester.attester_id
    key = catalogue.registered_key(key_id)
    known = key is not None and key.public_key is not None and key_id in heard.product.mp_keys
    require(known, "attester-key", f"MP key {key_id.hex()[:16]} is not registered for {heard.product.name}")
    assert key is not None and key.public_key is not None  # known
    with step("attester-signature"):
        mpmr = read_mpmr(heard.outer)
        mp.verify_mp(key.public_key, message, mpmr, heard.outer.signature)
    require(mpmr in heard.product.mpmrs, "mpmr", f"MPMR {mpmr.hex()} is not on the allow-list")
    return Endorsed("mp", key_id, key.origin, key.mp_use)


def _check_tpm(heard: Heard, message: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Endorsed:
    material, product = heard.hello.attester, heard.product
    assert material.ak_public is not None  # check_hello looked
    endorsed = check_ek(material, product, catalogue, now)
    with step("attester-signature"):
        attest, signature, pcrs = read_quote(heard.outer)
        ak = tpm2.read_public(material.ak_public)
        tpm2.verify_quote(attest, signature, ak.unique, hashlib.sha256(message).digest(), pcrs)
    secret = derive_credential_secret(heard.challenge.nonce, material.attester_id, authority)
    right = hmac.digest(secret.reveal(), hashlib.sha256(heard.proof.evidence).digest(), "sha256")
    activated = heard.proof.activation is not None and hmac.compare_digest(right, heard.proof.activation)
    require(activated, "activation", "the TPM with this EK did not activate the credential for this AK")
    return endorsed


def check_binding(heard: Heard, claims: Claims) -> None:
    """3.20 to 3.26: the claims are about this exchange, this attester and this board."""
    require(claims.nonce == heard.challenge.nonce, "nonce", "the evidence answers another challenge's nonce")
    hello_hash = hashlib.sha256(heard.proof.hello).digest()
    require(claims.hello_hash == hello_hash, "hello-hash", "the evidence is about another hello")
    challenge_hash = hashlib.sha256(heard.proof.challenge).digest()
    require(claims.challenge_hash == challenge_hash, "challenge-hash", "the evidence is about another challenge")
    wrapped = claims.attester_id == heard.hello.attester.attester_id
    require(wrapped, "attester-id", "the claims were made beside another attester: re-wrapped evidence")
    require(_names_itself(heard, claims), "ueid", "the ueid is not the one its hardware ids give")
    require(claims.realm == heard.product.realm, "realm", f"image of realm {claims.realm}")
    require(claims.product == heard.product.name, "product", f"image of product {claims.product!r}")


def _names_itself(heard: Heard, claims: Claims) -> bool:
    kind = heard.hello.attester.kind
    hardware_id = claims.hardware_ids.get(HARDWARE_ID_OF_KIND[kind])
    if hardware_id is None or (kind == "tpm" and hardware_id != claims.attester_id[:TPM_NAME_BYTES]):
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
    """3.31 to 3.36: the product's rules; the attester grade that resulted."""
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
    return grade


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
    if endorsed.origin == "simulated" or claims.life_cycle in (1, 2, 4):
        return "L"
    return "S" if endorsed.kind == "mp" and claims.life_cycle == 3 else "K"
