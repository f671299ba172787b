"""Objects in the token: found by class, label and id, looked at before use, made and destroyed by the policy."""

import hashlib
import os
from typing import Any, Final

from mpserver.errors import SetUp, StoreDamaged
from mpserver.token import policy
from mpserver.token.faults import TokenRefused
from mpserver.token.policy import PREFIX, Rule
from mpserver.token.pool import Session
from mpwire.errors import Malformed, Unauthentic
from mpwire.p256 import POINT_BYTES, SIGNATURE_BYTES, load_point, verify
from mpwire.secret import Secret

CURVE: Final = bytes.fromhex("06082a8648ce3d030107")
"""CKA_EC_PARAMS of P-256: its object identifier (RFC 5480 section 2.1.1.1), DER."""
_POINT_HEAD: Final = b"\x04\x41"
"""DER OCTET STRING of 65 bytes, in which CKA_EC_POINT wraps the point (PKCS#11 section 6.3.3)."""
QUESTION_BYTES: Final = 32
MAC_BYTES: Final = 32


class KeyMissing(StoreDamaged):
    """The token is there, and a key of this issuer is not in it."""


def find(session: Session, name: str) -> Any:
    """The key, as the policy wants it. Raises KeyMissing, StoreDamaged."""
    found = session.objects.get(name)
    if found is None:
        found = session.objects[name] = _find(session, name)
        try:
            session.vouch(session, name)
        except Exception:
            session.objects.pop(name, None)
            raise
    return found


def exists(session: Session, name: str) -> bool:
    """Whether one is there, flawed or not."""
    return bool(_list(session, name, rule_of(name).key_class))


def _find(session: Session, name: str) -> Any:
    rule = rule_of(name)
    keys = _list(session, name, rule.key_class)
    if not keys:
        raise KeyMissing(
            f"the token {session.token.label!r} does not hold the key {PREFIX}{name}: find out who destroyed it, then"
            " restore the token from its maker's backup"
        )
    if len(keys) > 1:
        raise StoreDamaged(f"the token holds {len(keys)} keys {PREFIX}{name}: somebody added to ours, and had the PIN")
    flaw = find_flaw(session, keys[0], rule)
    if flaw:
        raise StoreDamaged(f"the key {PREFIX}{name} in the token is not used: {flaw}; `mpserver hsm audit` says more")
    return keys[0]


def read_flags(session: Session, key: Any, rule: Rule) -> dict[str, Any]:
    """Type, size and every flag of the rule, by name; None where the token does not tell."""
    attribute = session.p11.Attribute
    size = ("EC_PARAMS",) if rule.key_type == "EC" else ("VALUE_LEN",)
    names = ("KEY_TYPE", *size, *rule.flags(rule.uses[0]))
    told = key.get_attributes([getattr(attribute, one) for one in names])
    return {one: told.get(getattr(attribute, one)) for one in names}


def find_flaw(session: Session, key: Any, rule: Rule) -> str | None:
    """The first reason why this is no key by the rule, or None."""
    told = read_flags(session, key, rule)
    if told["KEY_TYPE"] != getattr(session.p11.KeyType, rule.key_type):
        return f"it is no CKK_{rule.key_type}"
    if told.get("EC_PARAMS", CURVE) != CURVE or told.get("VALUE_LEN", rule.size // 8) != rule.size // 8:
        return "it is of another curve" if rule.key_type == "EC" else f"it does not have {rule.size} bits"
    flaws = [_compare(told, rule.flags(uses)) for uses in rule.uses]
    return None if None in flaws else flaws[0]


def _compare(told: dict[str, Any], wanted: dict[str, bool]) -> str | None:
    """A use that the token does not tell of is one that this class of key cannot have."""
    for name, value in wanted.items():
        said = told[name]
        if said is not value and not (said is None and name in policy.USES and not value):
            told_as = "not told" if said is None else str(said).lower()
            return f"CKA_{name} is {told_as}, and has to be {str(value).lower()}"
    return None


def make_pair(session: Session, name: str) -> bytes:
    """Find or make a key pair; the public point, which the private half has proven to be its own."""
    p11, flags = session.p11, session.p11.MechanismFlag
    if not exists(session, name):
        closed = {getattr(p11.Attribute, one): value for one, value in policy.CLOSED.items() if one != "TOKEN"}
        curve = session.raw.create_domain_parameters(p11.KeyType.EC, {p11.Attribute.EC_PARAMS: CURVE}, local=True)
        curve.generate_keypair(
            id=policy.make_id(session.issuer, name),
            label=PREFIX + name,
            store=True,
            capabilities=flags.SIGN | flags.VERIFY,
            mechanism=p11.Mechanism.EC_KEY_PAIR_GEN,
            public_template={p11.Attribute.MODIFIABLE: False},
            private_template=closed,
        )
    _check_made(session, name)
    return read_point(session, name)


def make_secret(session: Session, name: str) -> None:
    """Find or make a symmetric key."""
    p11, rule = session.p11, rule_of(name)
    if not exists(session, name):
        uses = p11.MechanismFlag(0)
        for use in rule.uses[0]:
            uses |= getattr(p11.MechanismFlag, use)
        session.raw.generate_key(
            getattr(p11.KeyType, rule.key_type),
            rule.size,
            id=policy.make_id(session.issuer, name),
            label=PREFIX + name,
            store=True,
            capabilities=uses,
            mechanism=getattr(p11.Mechanism, f"{rule.key_type}_KEY_GEN"),
            template={getattr(p11.Attribute, one): value for one, value in policy.CLOSED.items() if one != "TOKEN"},
        )
    _check_made(session, name)


def import_secret(session: Session, name: str, secret: Secret, use: str) -> None:
    """Find or import: known outside once, so the token tells ALWAYS_SENSITIVE and NEVER_EXTRACTABLE false, truly."""
    if not exists(session, name):
        place = {"ID": policy.make_id(session.issuer, name), "LABEL": PREFIX + name}
        session.raw.create_object(write_template(session, secret, use, {**policy.CLOSED, **place}))
    _check_made(session, name)


def write_template(session: Session, secret: Secret, use: str, more: dict[str, Any]) -> dict[Any, Any]:
    """CKK_GENERIC_SECRET that may do this one thing."""
    p11 = session.p11
    named = {**dict.fromkeys(policy.USES, False), use: True, **more, "VALUE": secret.reveal()}
    kind = {
        p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY,
        p11.Attribute.KEY_TYPE: p11.KeyType.GENERIC_SECRET,
    }
    return {**kind, **{getattr(p11.Attribute, one): value for one, value in named.items()}}


def destroy(session: Session, name: str) -> int:
    """C_DestroyObject, for both halves of a pair. How many were there."""
    session.objects.pop(name, None)
    keys = [*_list(session, name, rule_of(name).key_class), *_list(session, name, "PUBLIC_KEY")]
    for key in keys:
        key.destroy()
    return len(keys)


def read_point(session: Session, name: str) -> bytes:
    """Of the public object, once a signature has shown that the private key is its other half. Raises StoreDamaged."""
    find(session, name)
    publics = _list(session, name, "PUBLIC_KEY")
    if len(publics) != 1:
        raise StoreDamaged(
            f"the token holds {len(publics)} public halves {PREFIX}{name}; `mpserver hsm audit` says more"
        )
    spelled = bytes(publics[0][session.p11.Attribute.EC_POINT])
    point = spelled if len(spelled) == POINT_BYTES else spelled.removeprefix(_POINT_HEAD)
    prove(session, name, point)
    return point


def prove(session: Session, name: str, point: bytes) -> None:
    """Raises StoreDamaged unless the private key signs for this point."""
    question = os.urandom(QUESTION_BYTES)
    try:
        load_point(point)
        verify(point, question, sign(session, name, question))
    except (Malformed, Unauthentic):
        raise StoreDamaged(
            f"the key {PREFIX}{name} in the token is another than this issuer's: a token exchanged for one of the same"
            " label and serial number, or a key put in its place"
        ) from None


def sign(session: Session, name: str, message: bytes) -> bytes:
    """CKM_ECDSA over SHA-256, hashed here: r || s as PKCS#11 section 6.3.1 spells it."""
    digest = hashlib.sha256(message).digest()
    signature = bytes(find(session, name).sign(digest, mechanism=session.p11.Mechanism.ECDSA))
    if len(signature) != SIGNATURE_BYTES:
        raise TokenRefused(f"the token gave a signature of {len(signature)} bytes: see its maker's notes on CKM_ECDSA")
    return signature


def mac(session: Session, name: str, message: bytes) -> bytes:
    """CKM_SHA256_HMAC."""
    code = bytes(find(session, name).sign(message, mechanism=session.p11.Mechanism.SHA256_HMAC))
    if len(code) != MAC_BYTES:
        raise TokenRefused(f"the token gave an HMAC of {len(code)} bytes: see its maker's notes on CKM_SHA256_HMAC")
    return code


def list_names(session: Session, prefix: str) -> list[str]:
    """Of this issuer's secret keys below a prefix, without it."""
    p11 = session.p11
    found = []
    for key in session.raw.get_objects({p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY}):
        label = str(key[p11.Attribute.LABEL])
        name = label.removeprefix(PREFIX)
        if label.startswith(PREFIX + prefix) and bytes(key[p11.Attribute.ID]) == policy.make_id(session.issuer, name):
            found.append(name.removeprefix(prefix))
    if not found:
        _list(session, policy.SYMMETRIC, "SECRET_KEY")
    return sorted(found)


def rule_of(name: str) -> Rule:
    """Raises Malformed for what the policy does not know: no such key may be made."""
    rule = policy.find_rule(name)
    if rule is None:
        raise Malformed(f"no key {name!r} in the policy")
    return rule


def _list(session: Session, name: str, key_class: str) -> list[Any]:
    """Raises TokenNotPresent where none is found and the one key that every issuer has is not there either.

    An emptied slot answers as a token without objects would: what is absent must not be taken for destroyed.
    """
    found = _look(session, name, key_class)
    if not found and session.is_proven and not _look(session, policy.SYMMETRIC, "SECRET_KEY"):
        raise session.p11.TokenNotPresent
    return found


def _look(session: Session, name: str, key_class: str) -> list[Any]:
    attribute = session.p11.Attribute
    wanted = {
        attribute.CLASS: getattr(session.p11.ObjectClass, key_class),
        attribute.LABEL: PREFIX + name,
        attribute.ID: policy.make_id(session.issuer, name),
    }
    return list(session.raw.get_objects(wanted))


def _check_made(session: Session, name: str) -> None:
    """A token that takes a wish for an order of its own is no home for keys. Raises SetUp; the key is gone again."""
    try:
        find(session, name)
    except KeyMissing:
        raise SetUp(f"the token made {PREFIX}{name} under another label or id, or not at all") from None
    except StoreDamaged as error:
        destroy(session, name)
        raise SetUp(f"the token made a key otherwise than it was asked to, and it was destroyed: {error}") from None
