"""trust.json: whose signature counts. Every name mpwire.trust refuses with, on a Grant, a head or a trust update."""

from collections.abc import Iterator

from mpwire import labels
from mpwire.codec import Tag, decode, encode
from mpwire.trust import write_signed
from tests.vectors import exchange, golden, world
from tests.vectors.format import Vector, write_bytes

HALF_DAY = 43_200


def vectors() -> list[Vector]:
    """Each names the device's floor, and its realm and epoch where they are not those of world.json."""
    return [*_chains(), *_heads(), *_updates()]


def _vector(name: str, message: str, rule: str, raw: bytes, **trust: object) -> Vector:
    believed = {"realm": world.REALM, "epoch": world.EPOCH, "now": world.BUILD_TIME, **trust}
    kind = "ok" if rule == "ok" else "trust"
    return {"name": name, "message": message, "kind": kind, "rule": rule, "trust": believed, "bytes": write_bytes(raw)}


def _chains() -> Iterator[Vector]:
    def grant(**changes: object) -> bytes:
        return exchange.make_grant(golden.MP, **changes)  # type: ignore[arg-type]

    def by(*chain: bytes) -> bytes:
        return grant(chain=list(chain))

    leaf, role = world.grant_chain()
    other = {"not_before": world.NOW - 60, "not_after": world.NOW + 1_000}
    yield _vector("grant of a good chain", "grant", "ok", grant())
    yield _vector("grant at the last second of its key", "grant", "ok", grant(), now=world.NOW - 60 + 28_800)
    yield _vector("grant directly under a root", "grant", "ok", by(world.certify(world.GRANT, world.STANDBY_ROOT)))
    yield _vector(
        "chain under a stranger", "grant", "issuer-root", by(leaf, world.certify(world.GRANT_ROLE, world.OTHER))
    )
    yield _vector("delegation without the role certificate", "grant", "issuer-root", by(leaf))
    yield _vector("chain in the wrong order", "grant", "issuer-root", by(role, leaf))
    yield _vector(
        "delegated by another key than the one above",
        "grant",
        "issuer-root",
        by(world.certify(world.GRANT, world.OTHER, **other), role),
    )
    forged = world.certify(world.GRANT_ROLE, world.ROOT, signed_by=world.OTHER)
    yield _vector("role certificate forged", "grant", "issuer-signature", by(leaf, forged))
    forged = world.certify(world.GRANT, world.GRANT_ROLE, signed_by=world.OTHER, **other)
    yield _vector("delegation forged", "grant", "issuer-signature", by(forged, role))
    yield _vector("signed by the head's chain", "grant", "issuer-role", grant(chain=world.head_chain(), key=world.HEAD))
    yield _vector("delegation of another role", "grant", "issuer-role", grant(chain=world.grant_chain(role="head")))
    yield _vector(
        "chain of another realm",
        "grant",
        "issuer-realm",
        by(leaf, world.certify(world.GRANT_ROLE, world.ROOT, realm="production")),
    )
    yield _vector(
        "chain for another product",
        "grant",
        "issuer-product",
        by(leaf, world.certify(world.GRANT_ROLE, world.ROOT, product="other")),
    )
    yield _vector(
        "delegation for another product", "grant", "issuer-product", grant(chain=world.grant_chain(product="other"))
    )
    yield _vector("chain of a revoked epoch", "grant", "issuer-epoch", grant(), epoch=world.EPOCH + 1)
    yield _vector(
        "role certificate expired",
        "grant",
        "issuer-expired",
        by(leaf, world.certify(world.GRANT_ROLE, world.ROOT, not_after=world.BUILD_TIME - 1)),
    )
    yield _vector(
        "role certificate of more than 90 days",
        "grant",
        "issuer-life",
        by(leaf, world.certify(world.GRANT_ROLE, world.ROOT, not_after=world.NOW + 90 * world.DAY)),
    )
    yield _vector("delegation expired", "grant", "issuer-expired", grant(), now=world.NOW - 60 + 28_801)
    delegation = "issuer-delegation"
    yield _vector(
        "delegation of more than a shift",
        "grant",
        delegation,
        grant(chain=world.grant_chain(not_after=world.NOW + HALF_DAY)),
    )
    short = {"not_after": world.NOW + 100}
    yield _vector("delegation beyond the key above", "grant", delegation, grant(chain=world.grant_chain(short)))
    late = {"not_before": world.NOW}
    yield _vector("delegation from before the key above", "grant", delegation, grant(chain=world.grant_chain(late)))
    yield _vector(
        "delegation of a lower epoch", "grant", delegation, grant(chain=world.grant_chain({"epoch": world.EPOCH + 2}))
    )
    narrow = {"product": world.PRODUCT}
    yield _vector(
        "delegation wider than the key above", "grant", delegation, grant(chain=world.grant_chain(narrow, product=None))
    )
    yield _vector("grant signed by another key", "grant", "grant-signature", grant(key=world.OTHER))
    tagged = decode(grant())
    assert isinstance(tagged, Tag) and isinstance(tagged.value, list)
    payload = tagged.value[2]
    assert isinstance(payload, bytes)
    changed = encode(Tag(18, [*tagged.value[:2], payload[:-1] + bytes([payload[-1] ^ 1]), tagged.value[3]]))
    yield _vector("grant changed in one bit", "grant", "grant-signature", changed)
    replayed = write_signed(payload, labels.TYP_GRANT, labels.AAD_HEAD, world.grant_chain(), world.GRANT.sign)
    yield _vector("grant signed as a head", "grant", "grant-signature", replayed)


def _heads() -> Iterator[Vector]:
    def head(**changes: object) -> bytes:
        return exchange.make_head(golden.ENTRIES, **changes)  # type: ignore[arg-type]

    yield _vector("head of a good chain", "head", "ok", head())
    yield _vector("head under the grant chain", "head", "issuer-role", head(chain=world.grant_chain(), key=world.GRANT))
    yield _vector("head signed by another key", "head", "head-signature", head(key=world.OTHER))
    yield _vector("head of another realm", "head", "head-realm", head(bend={"realm": "production"}))
    yield _vector(
        "head of a time after its key's end", "head", "head-time", head(bend={"time": world.NOW + 90 * world.DAY})
    )
    yield _vector(
        "head of a time before its key's begin", "head", "head-time", head(bend={"time": world.NOW - 2 * world.DAY})
    )
    one_product = [world.certify(world.HEAD, world.ROOT, "head", product=world.PRODUCT)]
    yield _vector("head by a key for one product", "head", "issuer-product", head(chain=one_product))
    payload = decode(golden.messages()["head"][1])
    assert isinstance(payload, Tag) and isinstance(payload.value, list) and isinstance(payload.value[2], bytes)
    raw = write_signed(
        *(payload.value[2], labels.TYP_HEAD, labels.AAD_HEAD, world.head_chain(), world.HEAD.sign), world.trust_update()
    )
    yield _vector("head with a trust update", "head", "cose-header", raw)


def _updates() -> Iterator[Vector]:
    yield _vector("trust update", "trust-update", "ok", world.trust_update())
    yield _vector("trust update of the present epoch", "trust-update", "ok", world.trust_update(epoch=world.EPOCH))
    yield _vector(
        "trust update by a stranger", "trust-update", "trust-update-root", world.trust_update(signer=world.OTHER)
    )
    forged = world.trust_update(signed_by=world.OTHER)
    yield _vector("trust update forged", "trust-update", "trust-update-signature", forged)
    raw = world.trust_update(realm="production")
    yield _vector("trust update of another realm", "trust-update", "trust-update-realm", raw)
    raw = world.trust_update(epoch=world.EPOCH - 1)
    yield _vector("trust update backwards", "trust-update", "trust-update-epoch", raw)
    raw = world.trust_update(new_root_by=world.OTHER)
    yield _vector("new root that nobody holds", "trust-update", "trust-update-new-root", raw)
    many = [world.FixedKey(f"rotated-root-{count}").public_key().hex() for count in range(6)]
    raw = world.trust_update()
    yield _vector("a ninth root", "trust-update", "trust-update-roots", raw, more_roots=many)
    yield _vector("an eighth root", "trust-update", "ok", raw, more_roots=many[:-1])
