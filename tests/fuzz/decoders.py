"""Every reader of bytes that somebody else wrote: what must hold for all bytes, and valid bytes to begin with.

A door takes bytes and returns; MpError is the one error that may leave it. Doors behind a signature sign what they
get with the right key first, so that the readers behind the signature are reached too.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

from mpagent.acceptance import Pending, accept_closed, accept_grant, check_slots
from mpagent.anchors import read_anchors
from mpagent.errors import ConfigWrong
from mpagent.image import Image, WantedSlot
from mpagent.record import RECORD, RECORD_MAX_BYTES, Record, Stage
from mpagent.settings import read_settings
from mpagent.vault import GENERATION, VAULT_MAX_BYTES, Generation, SealedSlot
from mpserver.importlist import SignedKeys, read_list
from mpwire import cose, evidence, labels, limits, registry, tpm2
from mpwire.codec import Tag, decode, encode
from mpwire.cose import thumbprint, write_sign1
from mpwire.errors import MpError
from mpwire.inspection import describe_message, inspect_message
from mpwire.messages import eat, grant, issuer, plain
from mpwire.shape import MapOf
from mpwire.trust import Trust, apply_trust_update, read_head, read_signed, write_signed
from tests.fuzz.mutation import mutate_bytes, mutate_cbor, mutate_toml
from tests.vectors import exchange, imports, world

Feed = Callable[[bytes], object]


@dataclass(frozen=True)
class Door:
    """One way into a decoder."""

    feed: Feed
    sample: bytes
    """Bytes it takes without an error."""
    mutate: Callable[[bytes, Random], bytes] = mutate_cbor


def knock(door: Door, raw: bytes) -> bool:
    """Whether the door took it. Any error but MpError passes through: that is a finding."""
    try:
        door.feed(raw)
    except MpError:
        return False
    return True


def same(made: object, raw: bytes) -> None:
    """What was read and written again is what was read: no two spellings of one message."""
    assert made == raw, "two spellings of one value"


MP: Final = exchange.speak("mp")
TPM: Final = exchange.speak("tpm")
CARD: Final = exchange.speak("card")
OPTEE: Final = exchange.speak("optee")
SPOKEN: Final = {"mp": MP, "tpm": TPM, "card": CARD, "optee": OPTEE}
GRANT: Final = exchange.make_grant(MP)
RECEIPT: Final = exchange.make_receipt(GRANT)
CLOSED: Final = exchange.make_closed(RECEIPT)
TRUST: Final = Trust(world.REALM, world.ROOTS, world.EPOCH, world.BUILD_TIME)
IMAGE: Final = Image(
    realm=world.REALM,
    product=world.PRODUCT,
    roots=world.ROOTS,
    tls_roots=(),
    slots=tuple(WantedSlot(one.name, one.kind, one.destination) for one in exchange.make_slots()),
    build_time=world.BUILD_TIME,
)


def codec_doors() -> dict[str, Door]:
    """Whole messages through the reader alone."""

    def feed(raw: bytes) -> None:
        same(encode(decode(raw)), raw)

    samples = {"hello": TPM.hello, "proof": TPM.proof, "grant": GRANT, "closed": CLOSED}
    return {name: Door(feed, raw) for name, raw in samples.items()}


def cose_doors() -> dict[str, Door]:
    """Envelopes as evidence, with and without headers beside the signature."""

    def feed(raw: bytes) -> None:
        read = evidence.read_outer(raw)
        same(cose.join_sign1(read.protected, read.unprotected, read.payload, read.signature), raw)  # type: ignore[arg-type]

    def feed_key(raw: bytes) -> None:
        same(encode(cose.write_key(cose.read_key(decode(raw)))), raw)

    key = Door(feed_key, encode(cose.write_key(world.OTHER.public_key())))
    return {"mp": Door(feed, MP.evidence), "tpm": Door(feed, TPM.evidence), "key": key}


def _table(table: MapOf[Any], high: int, sample: bytes) -> Door:
    return Door(lambda raw: same(table.encode(table.decode(raw, high)), raw), sample)


def message_doors() -> dict[str, Door]:
    """Each message and each part of one that has a table."""
    hello, proof = plain.HELLO.decode(TPM.hello, 8_192), plain.PROOF.decode(TPM.proof, 65_536)
    challenge, closed = plain.CHALLENGE.decode(TPM.challenge, 8_192), plain.CLOSED.decode(CLOSED, 16_384)
    chain = read_signed(GRANT, labels.TYP_GRANT).headers[registry.HEADER_ISSUER_CHAIN]
    contents = exchange.make_contents()
    content = grant.Content(bytes(32), contents.check_key, 1, "/a")
    manifest = grant.Manifest(bytes(32), 1, "1.0", "/a")
    slots = (*contents.slots, grant.SlotGrant("big", "file", "plain", 1, content=content))
    contents = contents._replace(slots=slots, manifest=manifest, update_keys={"oem": world.UPDATE.public_key()})
    receipt = grant.RECEIPT.decode(take_payload(RECEIPT), 16_384)
    receipt = receipt._replace(images={"a": bytes(32)}, escrow={"disk-key": (bytes(65), bytes(48))}, waiver=bytes(32))
    refusal = plain.Refusal("quota", plain.RETRY, 60)
    parts: dict[str, tuple[MapOf[Any], bytes]] = {
        "hello": (plain.HELLO, plain.HELLO.encode(hello._replace(line=(b"l", bytes(64))))),
        "attester": (plain.MATERIAL, plain.MATERIAL.encode(hello.attester._replace(x5chain=(b"c", b"d")))),
        "challenge": (plain.CHALLENGE, TPM.challenge),
        "credential": (plain.CREDENTIAL, plain.CREDENTIAL.encode(challenge.credential)),  # type: ignore[arg-type]
        "proof": (plain.PROOF, TPM.proof),
        "key-attestation": (plain.KEY_ATTESTATION, plain.KEY_ATTESTATION.encode(proof.key_attestations["sign"])),
        "claims": (eat.CLAIMS, take_payload(MP.inner)),
        "confirmation": (eat.CONFIRMATION, eat.CONFIRMATION.encode(eat.Confirmation(world.OTHER.public_key()))),
        "grant": (grant.GRANT, take_payload(GRANT)),
        "contents": (grant.CONTENTS, grant.CONTENTS.encode(contents)),
        "slot": (grant.SLOT, grant.SLOT.encode(contents.slots[0])),
        "content": (grant.CONTENT, grant.CONTENT.encode(content)),
        "manifest": (grant.MANIFEST, grant.MANIFEST.encode(manifest)),
        "receipt": (grant.RECEIPT, grant.RECEIPT.encode(receipt)),
        "closed": (plain.CLOSED, CLOSED),
        "refusal": (plain.REFUSAL, plain.REFUSAL.encode(refusal)),
        "entry": (issuer.ENTRY, closed.entry),
        "head": (issuer.HEAD, take_payload(closed.head)),
        "issuer-certificate": (issuer.ISSUER_CERTIFICATE, take_payload(chain[0])),  # type: ignore[index,arg-type]
        "trust-update": (issuer.TRUST_UPDATE, take_payload(world.trust_update())),
        "import-list": (issuer.IMPORT_LIST, encode(imports.payload([imports.MP, imports.TPM, imports.OPTEE]))),
        "import-record": (issuer.IMPORT_RECORD, encode({**imports.MP, 6: "imx8mp"})),
    }
    return {name: _table(table, limits.MESSAGE_MAX_BYTES, raw) for name, (table, raw) in parts.items()}


def take_payload(envelope: bytes) -> bytes:
    tagged = decode(envelope)
    assert isinstance(tagged, Tag) and isinstance(tagged.value, list) and isinstance(tagged.value[2], bytes)
    return tagged.value[2]


def evidence_doors() -> dict[str, Door]:
    """Both envelopes and what stands beside each attester's signature."""

    def feed(raw: bytes) -> None:
        outer = evidence.read_outer(raw)
        if outer.alg == registry.ALG_TPM_QUOTE_ES256:
            attest, _, pcrs = evidence.read_quote(outer)
            tpm2.read_attest(attest)
            assert len(pcrs) <= 24
        elif outer.alg == registry.ALG_OPTEE_PS256:
            assert [len(one) for one in evidence.read_optee(outer)] == [32, 384]
        elif outer.alg == registry.ALG_ES256:
            evidence.check_bare(outer)
        else:
            assert len(evidence.read_mpmr(outer)) == 32
        inner, claims = evidence.read_inner(outer.payload)
        same(eat.CLAIMS.encode(claims), inner.payload)

    return {kind: Door(feed, spoken.evidence) for kind, spoken in SPOKEN.items()}


def trust_doors() -> dict[str, Door]:
    """Heads, certificates and updates, as a stranger and as a holder of the right key could make them."""
    head = plain.CLOSED.decode(CLOSED, 16_384).head
    update = world.trust_update()
    signed = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_ISSUER_CERTIFICATE}

    def feed_head(raw: bytes) -> None:
        assert read_head(raw, TRUST).realm == TRUST.realm

    def feed_head_payload(raw: bytes) -> None:
        feed_head(write_signed(raw, labels.TYP_HEAD, labels.AAD_HEAD, world.head_chain(), world.HEAD.sign))

    def feed_certificate(raw: bytes) -> None:
        chain = [write_sign1(signed, raw, labels.AAD_ISSUER_CERTIFICATE, world.ROOT.sign)]
        feed_head(write_signed(take_payload(head), labels.TYP_HEAD, labels.AAD_HEAD, chain, world.HEAD.sign))

    def feed_update(raw: bytes) -> None:
        after = apply_trust_update(raw, TRUST)
        assert after.epoch >= TRUST.epoch and after.realm == TRUST.realm and after.now == TRUST.now
        assert after.roots[: len(TRUST.roots)] == TRUST.roots

    def feed_update_payload(raw: bytes) -> None:
        headers = {
            registry.HEADER_ALG: registry.ALG_ES256,
            registry.HEADER_KID: thumbprint(world.ROOT.public_key()),
            registry.HEADER_TYP: labels.TYP_TRUST_UPDATE,
        }
        feed_update(write_sign1(headers, raw, labels.AAD_TRUST_UPDATE, world.ROOT.sign))

    return {
        "head": Door(feed_head, head),
        "head-payload": Door(feed_head_payload, take_payload(head)),
        "certificate": Door(feed_certificate, take_payload(world.head_chain()[0])),
        "update": Door(feed_update, update),
        "update-payload": Door(feed_update_payload, take_payload(update)),
        **_import_doors(),
    }


def _import_doors() -> dict[str, Door]:
    """Import lists: keys come out of a list only if they stand in it once, whole, under the one trusted signer."""
    point = imports.SIGNER.public_key()
    sample = encode(imports.payload([imports.MP, imports.TPM, imports.OPTEE]))

    def read(raw: bytes) -> SignedKeys:
        return read_list(raw, world.REALM, {thumbprint(point): point})

    signed = imports.seal(decode(sample))
    good = read(signed)

    def feed(raw: bytes) -> None:
        told = read(raw)
        assert (told.keys, told.sequence) == (good.keys, good.sequence), "a list that nobody signed"

    def feed_payload(raw: bytes) -> None:
        told = read(write_sign1(imports.HEADERS, raw, labels.AAD_IMPORT, imports.SIGNER.sign))
        assert 1 <= len(told.keys) == len({one.key_id for one in told.keys}) and told.sequence >= 1

    return {"import": Door(feed, signed), "import-payload": Door(feed_payload, sample)}


def tpm2_doors() -> dict[str, Door]:
    """TPM structures: byte formats without any frame of their own."""

    def feed_public(raw: bytes) -> None:
        same(tpm2.write_public(tpm2.read_public(raw)), raw)

    def feed_attest(raw: bytes) -> None:
        same(tpm2.write_attest(tpm2.read_attest(raw)), raw)

    storage = tpm2.BORN_HERE | tpm2.Attributes.RESTRICTED | tpm2.Attributes.DECRYPT
    rsa = tpm2.write_public(tpm2.Public(storage, b"\xc1" * 256, symmetric_bits=128))
    quote, _, _ = evidence.read_quote(evidence.read_outer(TPM.evidence))
    certify = plain.PROOF.decode(TPM.proof, 65_536).key_attestations["sign"].attest
    publics = {"ek": world.EK_PUBLIC, "ak": world.AK_PUBLIC, "rsa": rsa}
    attests = {"quote": quote, "certify": certify}
    return {
        **{name: Door(feed_public, raw, mutate_bytes) for name, raw in publics.items()},
        **{name: Door(feed_attest, raw, mutate_bytes) for name, raw in attests.items()},
    }


def stored_doors() -> dict[str, Door]:
    """What lies on the state partition, after worn flash or a thief had it."""
    ueid = exchange.ueid("mp")
    record = Record(Stage.PROVEN, MP.proof, ueid, MP.hello, MP.challenge, MP.proof, "job", bytes(32), 1, 2, 3)
    record = record._replace(trust_updates=(bytes(300),), closed=CLOSED)
    slots = tuple(SealedSlot(f"slot-{count}", "random", "sealed", 1, bytes(60)) for count in range(3))
    vault = Generation(ueid, 1, bytes(80), slots, bytes(28))
    return {
        "record": _table(RECORD, RECORD_MAX_BYTES, RECORD.encode(record)),
        "vault": _table(GENERATION, VAULT_MAX_BYTES, GENERATION.encode(vault)),
    }


def inspection_doors() -> dict[str, Door]:
    """What `mpagent inspect` prints of a file from anywhere: nothing in it may steer a terminal."""

    def feed(raw: bytes) -> None:
        assert all(line.isprintable() for line in inspect_message(raw).split("\n"))
        json.dumps(describe_message(raw), allow_nan=False)

    refusal = plain.REFUSAL.encode(plain.Refusal("quota", plain.OPERATOR))
    samples = {f"proof-{kind}": spoken.proof for kind, spoken in SPOKEN.items()}
    samples |= {"hello": TPM.hello, "challenge": TPM.challenge}
    samples |= {
        "grant": GRANT,
        "receipt": RECEIPT,
        "closed": CLOSED,
        "refusal": refusal,
        "update": world.trust_update(),
    }
    return {name: Door(feed, raw) for name, raw in samples.items()}


ANCHORS: Final = f"""
realm = "lab"
product = "{world.PRODUCT}"
roots = ["{world.ROOTS[0].hex()}", "{world.ROOTS[1].hex()}"]
tls_roots = ['''
-----BEGIN CERTIFICATE-----
''']
build_time = {world.BUILD_TIME}
allow_open = false
mp_key_ids = ["{"00" * 32}"]
epoch = 3
swname = "provisioning"
swversion = "1.4.2"
oemid = "00049f"

[board]
attest = "tpm"
seal = "tpm"
keys = "tpm"
soc = "none"
tpm_tcti = "device:/dev/tpmrm0"

[[slot]]
name = "disk-key"
kind = "local"
destination = "sealed"
length = 64
"""
SETTINGS: Final = """
server = "https://mp.example:8443"
proxy = "http://10.0.0.1:3128"
wait_limit_s = 600
log = "info"
"""


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mpagent-fuzz-")


def _by_file(read: Callable[[Path], object], name: str) -> Feed:
    """Configuration readers take a path; the one error that may leave them is ConfigWrong."""

    def feed(raw: bytes) -> None:
        path = Path(_folder().name) / name
        path.write_bytes(raw)
        try:
            read(path)
        except MpError as error:
            assert isinstance(error, ConfigWrong) and str(path) in str(error)
            raise

    return feed


def config_doors() -> dict[str, Door]:
    """The two files a device is configured by."""
    return {
        "anchors": Door(_by_file(read_anchors, "anchors.toml"), ANCHORS.encode(), mutate_toml),
        "settings": Door(_by_file(read_settings, "mpagent.toml"), SETTINGS.encode(), mutate_toml),
    }


def acceptance_doors() -> dict[str, Door]:
    """A Grant and a Closed as a stranger, as the grant key's holder and as the issuer itself could make them."""
    nonce = plain.CHALLENGE.decode(MP.challenge, 8_192).nonce
    pending = Pending(MP.hello, nonce, MP.proof, MP.evidence, exchange.ueid("mp"))
    points = {exchange.CERTIFICATE_SLOT: world.DEVICE_CERTIFICATE.public_key()}

    def feed_grant(raw: bytes) -> None:
        accepted = accept_grant(raw, pending, IMAGE, TRUST, world.DEVICE_KEM)
        assert (accepted.grant.ueid, accepted.grant.nonce) == (pending.ueid, nonce)
        assert accepted.digest == sha256(raw).digest()
        check_slots(accepted.contents, IMAGE.slots, {"api-key": 1}, points)
        assert {slot.name for slot in accepted.contents.slots} == {slot.name for slot in IMAGE.slots}

    def feed_payload(raw: bytes) -> None:
        feed_grant(write_signed(raw, labels.TYP_GRANT, labels.AAD_GRANT, world.grant_chain(), world.GRANT.sign))

    def feed_contents(raw: bytes) -> None:
        feed_grant(exchange.make_grant(MP, contents=raw))

    def feed_update(raw: bytes) -> None:
        feed_grant(exchange.make_grant(MP, trust_update=raw))

    def feed_closed(raw: bytes) -> None:
        closed, time = accept_closed(raw, pending.ueid, RECEIPT, TRUST)
        assert closed.receipt_digest == sha256(RECEIPT).digest() and time <= world.NOW + 90 * world.DAY

    def feed_entry(raw: bytes) -> None:
        feed_closed(exchange.make_closed(RECEIPT, entry=raw))

    contents = grant.CONTENTS.encode(exchange.make_contents())
    update = world.trust_update(epoch=world.EPOCH)
    return {
        "grant": Door(feed_grant, GRANT),
        "payload": Door(feed_payload, take_payload(GRANT)),
        "contents": Door(feed_contents, contents),
        "trust-update": Door(feed_update, update),
        "closed": Door(feed_closed, CLOSED),
        "entry": Door(feed_entry, plain.CLOSED.decode(CLOSED, 16_384).entry),
    }


WIRE: Final[Mapping[str, Callable[[], dict[str, Door]]]] = {
    "codec": codec_doors,
    "cose": cose_doors,
    "messages": message_doors,
    "evidence": evidence_doors,
    "trust": trust_doors,
    "tpm2": tpm2_doors,
    "stored": stored_doors,
    "inspection": inspection_doors,
    "config": config_doors,
    "acceptance": acceptance_doors,
}
