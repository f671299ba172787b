"""Making the two messages that speak for the board: Hello and Proof (docs/wire.md 4.1, 4.3)."""

import hashlib
import hmac
from collections.abc import Mapping

from mpagent.errors import HardwareGone, NotMine
from mpagent.hal.ports import Attestation, AttesterMaterial, Board, DeviceKey, Provenance, SocFacts
from mpagent.image import Image
from mpwire import labels, registry
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure, write_sign1
from mpwire.csr import write_csr
from mpwire.errors import PeerBroke
from mpwire.evidence import outer_headers, write_optee_signature, write_tpm_signature
from mpwire.limits import MP_MESSAGE_MAX_BYTES
from mpwire.messages.eat import CLAIMS, Claims, Confirmation
from mpwire.messages.plain import (
    HELLO,
    PROOF,
    Challenge,
    Hello,
    Material,
    Proof,
    WireKeyAttestation,
    hash_key_attestation,
)
from mpwire.ueid import HARDWARE_ID_OF_KIND, TPM_NAME_BYTES, make_ueid, name_card_key


def read_hardware_ids(facts: SocFacts, material: AttesterMaterial) -> dict[str, bytes]:
    """Every id the hardware cannot change, by name; the issuer remembers them all."""
    ids = {}
    if facts.uid is not None:
        ids["imx-uid"] = facts.uid
    if material.kind == "tpm":
        ids["tpm-ek"] = material.attester_id[:TPM_NAME_BYTES]
    elif material.kind == "card" and material.public_key is not None:
        ids["card-key"] = name_card_key(material.public_key)
    elif material.kind == "optee":
        ids["optee-key"] = material.attester_id
    return ids


def name_board(board: Board) -> bytes:
    """The ueid of this chip, read from it now. Raises HardwareGone where the fuse UID it needs is absent."""
    facts, material = board.soc.read_facts(), board.attester.describe()
    return _make_ueid(facts, material, read_hardware_ids(facts, material))


def _make_ueid(facts: SocFacts, material: AttesterMaterial, ids: Mapping[str, bytes]) -> bytes:
    name = HARDWARE_ID_OF_KIND[material.kind]
    if name not in ids:
        raise HardwareGone(f"this board's attester is {material.kind!r}, which needs {name}, and the chip gives none")
    return make_ueid(material.kind, facts.family, ids[name])


def write_hello(board: Board, image: Image, random: bytes, run_id: bytes) -> tuple[bytes, bytes]:
    """(Hello, ueid). `random` is 16 bytes, `run_id` 8."""
    facts, material = board.soc.read_facts(), board.attester.describe()
    ueid = _make_ueid(facts, material, read_hardware_ids(facts, material))
    hello = Hello(
        versions=(registry.WIRE_VERSION,),
        product=image.product,
        random=random,
        attester=Material(
            kind=material.kind,
            attester_id=material.attester_id,
            profile=material.profile,
            ek_public=material.ek_public,
            ek_certificate=material.ek_certificate,
            ak_public=material.ak_public,
            x5chain=material.x5chain or None,
            rsa_public=material.rsa_public,
        ),
        ueid=ueid,
        run_id=run_id,
    )
    return HELLO.encode(hello), ueid


def write_proof(
    board: Board, image: Image, agent_version: str, hello: bytes, raw: bytes, challenge: Challenge
) -> bytes:
    """3. Evidence over this Hello and this Challenge, with the CSRs and key attestations it hashes."""
    sign = board.keyring.find_or_make(labels.DEVICE_SIGN)
    kem = board.keyring.find_or_make(labels.DEVICE_KEM)
    csrs = _make_csrs(board, image)
    attestations = _attest_keys(board, challenge.nonce)
    material = board.attester.describe()
    claims = _state(board, material, image, agent_version, (sign, kem))
    claims = _bind(claims, hello, raw, challenge.nonce, csrs, attestations)
    inner = write_sign1(
        {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_EAT},
        CLAIMS.encode(claims),
        labels.AAD_EAT,
        sign.sign,
    )
    evidence = _attest(board, material.profile, inner)
    proof = Proof(
        evidence=evidence,
        hello=hello,
        challenge=raw,
        csrs=csrs,
        key_attestations=attestations,
        activation=_activate(board, challenge, evidence),
    )
    return PROOF.encode(proof)


def _state(
    board: Board, material: AttesterMaterial, image: Image, agent_version: str, keys: tuple[DeviceKey, DeviceKey]
) -> Claims:
    """What the board is, before it is bound to one exchange. `keys` are `sign` and `kem`."""
    sign, kem = keys
    facts = board.soc.read_facts()
    ids = read_hardware_ids(facts, material)
    return Claims(
        nonce=b"",
        ueid=_make_ueid(facts, material, ids),
        oemid=image.oemid,
        hwmodel=facts.family.encode(),
        intuse=registry.INTUSE_PROVISIONING,
        cnf=Confirmation(sign.public_key()),
        kem_key=kem.public_key(),
        attester_id=material.attester_id,
        hello_hash=b"",
        challenge_hash=b"",
        realm=image.realm,
        product=image.product,
        life_cycle=None if facts.life_cycle is None else int(facts.life_cycle),
        srk_hash=facts.srk_hash,
        slots_wanted=tuple(slot.name for slot in image.slots),
        swname=image.swname,
        swversion=None if image.swversion is None else (image.swversion,),
        agent_version=agent_version,
        hardware_ids=ids,
        backends={**board.chosen, "seal": board.sealer.name},
        provenance=_tell_who_vouches(facts, material.kind, image),
    )


def _tell_who_vouches(facts: SocFacts, kind: str, image: Image) -> dict[int, int]:
    """For each claim about the board (docs/wire.md section 7). What binds the claims to one exchange needs nobody."""
    uid = facts.provenance.get("uid")
    by = {
        registry.CLAIM_UEID: uid if kind == "mp" else Provenance.ATTESTER,  # all others prove the id it is made of
        registry.CLAIM_HARDWARE_IDS: uid or Provenance.ATTESTER,
        registry.CLAIM_LIFE_CYCLE: facts.provenance.get("life_cycle"),
        registry.CLAIM_SRK_HASH: facts.provenance.get("srk_hash"),
    }
    stated = {
        registry.CLAIM_OEMID: image.oemid,
        registry.CLAIM_SWNAME: image.swname,
        registry.CLAIM_SWVERSION: image.swversion,
        registry.CLAIM_REALM: image.realm,
        registry.CLAIM_PRODUCT: image.product,
        registry.CLAIM_SLOTS_WANTED: image.slots,
    }
    by.update({claim: Provenance.IMAGE for claim, value in stated.items() if value is not None})
    return {claim: int(who) for claim, who in by.items() if who is not None}


def _bind(
    claims: Claims,
    hello: bytes,
    challenge: bytes,
    nonce: bytes,
    csrs: Mapping[str, bytes],
    attestations: Mapping[str, WireKeyAttestation],
) -> Claims:
    """The same claims, for this exchange alone."""
    return claims._replace(
        nonce=nonce,
        hello_hash=hashlib.sha256(hello).digest(),
        challenge_hash=hashlib.sha256(challenge).digest(),
        csr_hashes={slot: hashlib.sha256(csr).digest() for slot, csr in csrs.items()},
        key_attestation_hashes={label: hash_key_attestation(one) for label, one in attestations.items()},
    )


def _make_csrs(board: Board, image: Image) -> dict[str, bytes]:
    wanted = [slot.name for slot in image.slots if slot.kind == "certificate"]
    keys = {slot: board.keyring.find_or_make(labels.certificate_key(slot)) for slot in wanted}
    return {slot: write_csr(key.public_key(), key.sign) for slot, key in keys.items()}


def _attest_keys(board: Board, nonce: bytes) -> dict[str, WireKeyAttestation]:
    """TPM only: both enrollment keys certified by the AK, with the nonce's hash as qualifying data."""
    if board.key_prover is None:
        return {}
    qualifying = hashlib.sha256(nonce).digest()
    proven = {label: board.key_prover.prove(label, qualifying) for label in (labels.DEVICE_SIGN, labels.DEVICE_KEM)}
    return {label: WireKeyAttestation(one.public, one.attest, one.signature) for label, one in proven.items()}


def _attest(board: Board, profile: str | None, inner: bytes) -> bytes:
    """The attester's envelope over the device key's."""
    protected = encode(outer_headers(board.attester.alg, profile))
    message = sig_structure(protected, labels.AAD_EVIDENCE, inner)
    if len(message) > MP_MESSAGE_MAX_BYTES:
        raise PeerBroke(f"the evidence is {len(message)} bytes, more than the attester signs in one call")
    made = board.attester.attest(message)
    signature, unprotected = _shape_signature(made)
    return join_sign1(protected, unprotected, inner, signature)


def _shape_signature(made: Attestation) -> tuple[bytes, dict[int, object]]:
    if made.attest is not None:
        pcrs: list[object] = [[index, value] for index, value in made.pcrs]
        return write_tpm_signature(made.attest, made.signature), {registry.HEADER_ATTEST_PCRS: pcrs}
    if made.measurement is not None:
        return write_optee_signature(made.measurement, made.signature), {}
    return made.signature, {} if made.mpmr is None else {registry.HEADER_MPMR: made.mpmr}


def _activate(board: Board, challenge: Challenge, evidence: bytes) -> bytes | None:
    """TPM only: HMAC under the activated secret shows that AK and EK are in one TPM."""
    if board.activator is None:
        return None
    if challenge.credential is None:
        raise PeerBroke("the challenge holds no credential for this board's TPM")
    try:
        secret = board.activator.activate(challenge.credential.id_object, challenge.credential.encrypted_secret)
    except NotMine as error:  # nothing protects a Challenge: a stranger's credential is no finding about this board
        raise PeerBroke("challenge-credential: made for another TPM", detail=str(error)) from error
    return hmac.digest(secret.reveal(), hashlib.sha256(evidence).digest(), "sha256")
