"""device.json: what an issuer may say, each with the one check of the device that must refuse it.

The device is in the golden MP exchange: it said `hello-mp` and `proof-mp` of golden.json, then `receipt`. Beside the
bytes a vector has `step` and `check` (docs/wire.md 4), and `stored` where the vault holds versions of slots already.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from mpwire import merkle
from mpwire.codec import encode
from mpwire.messages.grant import CONTENTS, SlotGrant, make_check_value
from mpwire.messages.issuer import ENTRY, Entry
from mpwire.messages.plain import CLOSED
from mpwire.secret import Secret
from tests.vectors import exchange, golden, world
from tests.vectors.asking import OTHER_UEID
from tests.vectors.format import Vector, write_bytes

GRANT_PAST_SIZE = 131_073


def vectors() -> list[Vector]:
    """device.json."""
    return [*_challenges(), *_envelopes(), *_subjects(), *_ciphertexts(), *_slots(), *_closed(), *_proofs()]


def _vector(name: str, message: str, step: str, check: str, raw: bytes, **differs: object) -> Vector:
    kind = {"kind": "ok"} if check == "ok" else {"kind": "check", "check": check}
    return {"name": name, "message": message, **kind, "step": step, **differs, "bytes": write_bytes(raw)}


def _grant(name: str, step: str, check: str, **changes: object) -> Vector:
    made = exchange.make_grant(golden.MP, **changes)  # type: ignore[arg-type]
    return _vector(f"grant {name}", "grant", step, check, made)


def _challenges() -> Iterator[Vector]:
    yield _vector("challenge", "challenge", "2.11", "ok", golden.MP.challenge)
    yield _vector("challenge cut short", "challenge", "2.10", "truncated", golden.MP.challenge[:-1])
    yield _vector("challenge to another hello", "challenge", "2.11", "challenge-hello", golden.TPM.challenge)


def _envelopes() -> Iterator[Vector]:
    yield _grant("as golden", "4.9", "ok")
    yield _vector("grant with a trust update", "grant", "4.9", "ok", golden.grant_with_trust_update())
    yield _vector("grant cut short", "grant", "4.1", "truncated", golden.GRANT[:-1])
    long = golden.GRANT + bytes(GRANT_PAST_SIZE - len(golden.GRANT))
    yield _vector("grant with a long rest", "grant", "4.1", "grant-size", long)
    yield _vector("receipt as a grant", "grant", "4.1", "cose-typ", golden.RECEIPT)
    forged = world.trust_update(signed_by=world.OTHER)
    yield _grant("with a forged trust update", "4.2", "trust-update-signature", trust_update=forged)
    back = world.trust_update(epoch=world.EPOCH - 1)
    yield _grant("with an old trust update", "4.2", "trust-update-epoch", trust_update=back)
    yield _grant("that its own trust update revokes", "4.3", "issuer-epoch", trust_update=world.trust_update())
    chain = [world.grant_chain()[0], world.certify(world.GRANT_ROLE, world.OTHER)]
    yield _grant("under a stranger's root", "4.3", "issuer-root", chain=chain)
    yield _grant("by the head's key", "4.3", "issuer-role", chain=world.head_chain(), key=world.HEAD)
    yield _grant("by another key", "4.4", "grant-signature", key=world.OTHER)
    yield _grant("of a time after its key's end", "4.4", "grant-time", bend={"issued_at": world.NOW + world.DAY})


def _subjects() -> Iterator[Vector]:
    yield _grant("to another hello", "4.5", "grant-hello", bend={"hello_hash": bytes(32)})
    yield _grant("to another challenge", "4.5", "grant-nonce", bend={"nonce": bytes(60)})
    yield _grant("of another realm", "4.6", "grant-realm", bend={"realm": "production"})
    yield _grant("for another product", "4.6", "grant-product", bend={"product": "other"})
    yield _grant("for another device", "4.6", "grant-ueid", bend={"ueid": OTHER_UEID})
    theirs = exchange.make_grant(golden.TPM, "tpm")
    yield _vector("grant of another device, recorded", "grant", "4.5", "grant-hello", theirs)


def _ciphertexts() -> Iterator[Vector]:
    bound: dict[str, object] = {
        "realm": "production",
        "product": "other",
        "job": "other",
        "ueid": OTHER_UEID,
        "nonce": bytes(60),
    }
    for name, value in bound.items():
        yield _grant(f"sealed for another {name}", "4.7", "hpke-open", sealed_for={name: value})
    other = replace(golden.MP, evidence=golden.TPM.evidence)
    raw = exchange.make_grant(other)
    yield _vector("grant sealed for other evidence", "grant", "4.7", "hpke-open", raw)
    chain = [
        world.certify(world.OTHER, world.GRANT_ROLE, not_after=world.NOW, not_before=world.NOW - 60),
        world.grant_chain()[1],
    ]
    yield _grant("sealed by another issuer key", "4.7", "hpke-open", chain=chain, key=world.OTHER)
    yield _grant(
        "with its ciphertext changed", "4.7", "hpke-open", ciphertext=lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])
    )
    yield _grant("with no ciphertext", "4.7", "hpke-open", ciphertext=lambda raw: bytes(16))
    yield _grant("with contents that are none", "4.7", "contents", contents=encode({}))


def _slots() -> Iterator[Vector]:
    local, random, static, certificate = exchange.make_slots()

    def bent(name: str, step: str, check: str, *slots: SlotGrant, **differs: object) -> Vector:
        made = exchange.make_grant(golden.MP, contents=CONTENTS.encode(exchange.make_contents(slots)))
        return _vector(f"grant {name}", "grant", step, check, made, **differs)

    value = Secret(world.fill("other-value", 32))
    named = random._replace(name="other", check=make_check_value(exchange.CHECK_KEY, "other", 1, random.value or value))
    yield bent("without a slot", "4.8", "grant-slots", local, random, static)
    yield bent("with a slot too many", "4.8", "grant-slots", local, random, static, certificate, named)
    yield bent("with a slot twice", "4.8", "grant-slots", local, random, random, static, certificate)
    yield bent("with a slot of another name", "4.8", "grant-slots", local, named, static, certificate)
    wrong_kind = "grant-slot-kind"
    yield bent(
        "with a slot of another kind", "4.8", wrong_kind, local, random._replace(kind="static"), static, certificate
    )
    plain = random._replace(destination="plain")
    yield bent("with a slot for another destination", "4.8", wrong_kind, local, plain, static, certificate)
    stored = {"update-ca": 3}
    yield bent("with a slot older than stored", "4.8", "grant-slot-version", *exchange.make_slots(), stored=stored)
    yield bent("with a slot as stored", "4.9", "ok", *exchange.make_slots(), stored={"update-ca": 2})
    missing = "grant-slot-value"
    yield bent(
        "with a value for a local slot", "4.9", missing, local._replace(value=value), random, static, certificate
    )
    yield bent("without a value", "4.9", missing, local, random._replace(value=None), static, certificate)
    yield bent("without a check value", "4.9", missing, local, random._replace(check=None), static, certificate)
    wrong = "grant-check-value"
    yield bent("with another value", "4.9", wrong, local, random._replace(value=value), static, certificate)
    yield bent(
        "with a check value of another slot",
        "4.9",
        wrong,
        local,
        random._replace(check=static.check),
        static,
        certificate,
    )
    yield bent("with a value of another version", "4.9", wrong, local, random._replace(version=2), static, certificate)
    chain = Secret(encode([exchange.device_certificate(world.OTHER)]))
    check = make_check_value(exchange.CHECK_KEY, certificate.name, 1, chain)
    foreign = certificate._replace(value=chain, check=check)
    yield bent("with a certificate for another key", "4.9", "grant-certificate", local, random, static, foreign)


def _closed() -> Iterator[Vector]:
    yield _vector("closed", "closed", "6.5", "ok", golden.CLOSED)
    yield _vector("closed cut short", "closed", "6.1", "truncated", golden.CLOSED[:-1])
    other = exchange.make_receipt(golden.GRANT, bend={"rollback": "tpm-nv"})
    yield _vector("closed of another receipt", "closed", "6.2", "closed-receipt", exchange.make_closed(other))
    digest = hashlib.sha256(golden.RECEIPT).digest()
    ueid = exchange.ueid("mp")
    wrong = {
        "of a grant": Entry("grant", world.NOW, world.JOB, digest, ueid),
        "of another board": Entry("receipt", world.NOW, world.JOB, digest, OTHER_UEID),
        "of no board": Entry("receipt", world.NOW, world.JOB, digest),
        "of another receipt": Entry("receipt", world.NOW, world.JOB, bytes(32), ueid),
    }
    for name, entry in wrong.items():
        raw = exchange.make_closed(golden.RECEIPT, entry=ENTRY.encode(entry))
        yield _vector(f"closed by an entry {name}", "closed", "6.3", "closed-entry", raw)
    entries = golden.ENTRIES
    heads = {
        "by another key": ("head-signature", exchange.make_head(entries, key=world.OTHER)),
        "by the grant key": ("issuer-role", exchange.make_head(entries, chain=world.grant_chain(), key=world.GRANT)),
        "of another realm": ("head-realm", exchange.make_head(entries, bend={"realm": "production"})),
        "of a time after its key's end": (
            "head-time",
            exchange.make_head(entries, bend={"time": world.NOW + 99 * world.DAY}),
        ),
    }
    for name, (check, head) in heads.items():
        raw = exchange.make_closed(golden.RECEIPT, head=head)
        yield _vector(f"closed under a head {name}", "closed", "6.4", check, raw)


def _proofs() -> Iterator[Vector]:
    path = CLOSED.decode(golden.CLOSED, len(golden.CLOSED)).path
    smaller = exchange.make_head(golden.ENTRIES[:3])
    bends: dict[str, dict[str, object]] = {
        "at another index": {"leaf_index": 2},
        "beyond the tree": {"leaf_index": 5},
        "with a path too short": {"path": path[:-1]},
        "with a path too long": {"path": (*path, merkle.EMPTY_ROOT)},
        "with a path upside down": {"path": path[::-1]},
        "without a path": {"path": ()},
        "under the head of a smaller tree": {"head": smaller},
    }
    for name, bend in bends.items():
        raw = exchange.make_closed(golden.RECEIPT, bend=bend)
        yield _vector(f"closed {name}", "closed", "6.5", "merkle-inclusion", raw)
