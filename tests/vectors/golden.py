"""A golden vector of every message and signed object, with every optional field in one of them."""

from typing import Any, Final

from mpwire import labels, registry
from mpwire.codec import decode
from mpwire.cose import write_sign1
from mpwire.messages.eat import CLAIMS
from mpwire.messages.grant import CONTENTS, Content, Manifest, SlotGrant
from mpwire.messages.plain import CHALLENGE, HELLO, REFUSAL, Challenge, Refusal
from mpwire.secret import Secret
from tests.vectors import exchange, world
from tests.vectors.format import Vector, write_bytes
from tests.vectors.rsa import OPTEE as OPTEE_KEY

MP: Final = exchange.speak("mp")
TPM: Final = exchange.speak("tpm")
CARD: Final = exchange.speak("card")
OPTEE: Final = exchange.speak("optee")
GRANT: Final = exchange.make_grant(MP)
RECEIPT: Final = exchange.make_receipt(GRANT)
CLOSED: Final = exchange.make_closed(RECEIPT)
ENTRIES: Final = exchange.make_entries(RECEIPT)


def hello_with_everything() -> bytes:
    """Every optional field at once; no issuer takes it, every reader does."""
    material = exchange.material("tpm")._replace(
        kind="card",
        profile="relay/1",
        ek_certificate=exchange.device_certificate(),
        x5chain=(exchange.device_certificate(),),
        rsa_public=OPTEE_KEY.public,
    )
    hello = exchange.make_hello("tpm")
    return HELLO.encode(hello._replace(versions=(1, 2), attester=material, line=(b"line credential", bytes(64))))


def challenge_without_claims() -> bytes:
    """The least Challenge."""
    challenge: Challenge = CHALLENGE.decode(MP.challenge, len(MP.challenge))
    return CHALLENGE.encode(challenge._replace(claims=()))


def claims_with_least() -> bytes:
    """An EAT payload of a board that knows nothing of itself that it need not know."""
    claims = CLAIMS.decode(decode_eat(MP.inner), len(MP.inner))
    absent: dict[str, Any] = {
        name: None for name in ("oemid", "life_cycle", "srk_hash", "swname", "swversion", "measurements")
    }
    return CLAIMS.encode(claims._replace(**absent, csr_hashes={}, provenance={}))


def decode_eat(inner: bytes) -> bytes:
    """Payload of an envelope."""
    tagged: Any = decode(inner)
    payload: bytes = tagged.value[2]
    return payload


def contents_with_everything() -> bytes:
    """A Grant's plain text with every optional field."""
    contents = exchange.make_contents()
    large = SlotGrant(
        *("maps", "file", "plain", 3),
        content=Content(world.fill("content", 32), Secret(world.fill("content-key", 32)), 1 << 33, "files/maps.bin"),
    )
    return CONTENTS.encode(
        contents._replace(
            slots=(*contents.slots, large),
            manifest=Manifest(world.fill("image", 32), 48_000_000, "2.0.1", "images/production.raucb"),
            update_keys={"oem": world.UPDATE.public_key(), "service": world.OTHER.public_key()},
        )
    )


def receipt_with_everything() -> bytes:
    """A final receipt with an escrowed value and a waiver."""
    bend = {
        "phase": "final",
        "images": {"production": world.fill("image", 32)},
        "waiver": world.fill("waiver", 32),
        "closed_proof": "secure-world",
    }
    return exchange.make_receipt(GRANT, bend=bend)


def grant_with_trust_update() -> bytes:
    """Its chain is of the epoch that the update brings."""
    chain = world.grant_chain({"epoch": world.EPOCH + 1}, epoch=world.EPOCH + 1)
    return exchange.make_grant(MP, trust_update=world.trust_update(), chain=chain)


def messages() -> dict[str, tuple[str, bytes]]:
    """name: (rule of docs/wire.cddl, bytes)."""
    return {
        "hello-mp": ("hello", MP.hello),
        "hello-tpm": ("hello", TPM.hello),
        "hello-card": ("hello", CARD.hello),
        "hello-optee": ("hello", OPTEE.hello),
        "hello-with-everything": ("hello", hello_with_everything()),
        "challenge-mp": ("challenge", MP.challenge),
        "challenge-tpm": ("challenge", TPM.challenge),
        "challenge-without-claims": ("challenge", challenge_without_claims()),
        "proof-mp": ("proof", MP.proof),
        "proof-tpm": ("proof", TPM.proof),
        "proof-card": ("proof", CARD.proof),
        "proof-optee": ("proof", OPTEE.proof),
        "evidence-mp": ("evidence", MP.evidence),
        "evidence-tpm": ("evidence", TPM.evidence),
        "evidence-card": ("evidence", CARD.evidence),
        "evidence-optee": ("evidence", OPTEE.evidence),
        "eat-mp": ("eat", MP.inner),
        "eat-tpm": ("eat", TPM.inner),
        "eat-claims-with-least": ("eat-claims", claims_with_least()),
        "grant": ("grant", GRANT),
        "grant-with-trust-update": ("grant", grant_with_trust_update()),
        "contents": ("contents", CONTENTS.encode(exchange.make_contents())),
        "contents-with-everything": ("contents", contents_with_everything()),
        "receipt": ("receipt", RECEIPT),
        "receipt-with-everything": ("receipt", receipt_with_everything()),
        "closed": ("closed", CLOSED),
        "refusal": ("refusal", REFUSAL.encode(Refusal("quota", 2))),
        "refusal-with-wait": ("refusal", REFUSAL.encode(Refusal("challenge-expired", 1, 30))),
        "issuer-certificate": ("issuer-certificate", world.certify(world.GRANT_ROLE, world.ROOT)),
        "issuer-certificate-delegated": ("issuer-certificate", world.grant_chain()[0]),
        "trust-update": ("trust-update", world.trust_update()),
        "head": ("head", exchange.make_head(ENTRIES)),
        "entry": ("entry", ENTRIES[3]),
        "entry-of-no-board": ("entry", ENTRIES[0]),
    }


def vectors() -> list[Vector]:
    """golden.json."""
    return [
        {"name": name, "message": message, "kind": "ok", "bytes": write_bytes(raw)}
        for name, (message, raw) in messages().items()
    ]


def reseal(message: str, payload: bytes) -> bytes:
    """`payload` inside a fresh envelope of this message, signed by the right key; plain messages have none."""
    es256 = {registry.HEADER_ALG: registry.ALG_ES256}
    match message:
        case "eat":
            headers = {**es256, registry.HEADER_TYP: labels.TYP_EAT}
            return write_sign1(headers, payload, labels.AAD_EAT, world.DEVICE_SIGN.sign)
        case "receipt":
            return exchange.sign_receipt(payload)
        case "grant":
            headers = {
                **es256,
                registry.HEADER_TYP: labels.TYP_GRANT,
                registry.HEADER_ISSUER_CHAIN: world.grant_chain(),
            }
            return write_sign1(headers, payload, labels.AAD_GRANT, world.GRANT.sign)
        case "head":
            headers = {**es256, registry.HEADER_TYP: labels.TYP_HEAD, registry.HEADER_ISSUER_CHAIN: world.head_chain()}
            return write_sign1(headers, payload, labels.AAD_HEAD, world.HEAD.sign)
        case "issuer-certificate":
            headers = {**es256, registry.HEADER_TYP: labels.TYP_ISSUER_CERTIFICATE}
            return write_sign1(headers, payload, labels.AAD_ISSUER_CERTIFICATE, world.ROOT.sign)
        case "trust-update":
            tagged: Any = decode(world.trust_update())
            return exchange.resign(tagged.value[0], payload, labels.AAD_TRUST_UPDATE, world.ROOT)
        case _:
            return payload
