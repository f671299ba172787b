"""mpserver hsm: the token that the issuer's keys are in."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpserver.authority import read_certificate, read_role_certificate
from mpserver.errors import SetUp
from mpserver.keystore import CA, ROLES, ROOT, Keystore
from mpserver.output import Shown
from mpserver.state import Places, open_ledger
from mpserver.store.database import explained
from mpserver.token import policy, preparation
from mpserver.token.audit import Expected, Finding, audit
from mpserver.token.pool import Pool, Session, name_serial
from mpserver.token.settings import has_settings, name_pin, read_settings
from mpserver.token.vault import find_way

TROUBLE_EXIT: Final = 65
_TRIES: Final = ((0x40000, "locked"), (0x20000, "one try left"), (0x10000, "running low"))
"""CKF_USER_PIN_LOCKED, _FINAL_TRY, _COUNT_LOW."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init", help="initialise a blank token, for a later `mpserver init --hsm`")
    init.add_argument("--module", required=True, type=Path, metavar="FILE", help="the PKCS#11 library")
    init.add_argument("--token", required=True, metavar="LABEL", help="its label from now on")
    init.add_argument("--so-pin-file", required=True, metavar="FILE", help="the security officer's PIN, to be set")
    init.add_argument("--pin-file", required=True, metavar="FILE", help="the user PIN, to be set")
    init.set_defaults(run=initialize)
    status = verbs.add_parser("status", help="which token, whether it is there, and what it can do")
    status.set_defaults(run=show_status)
    check = verbs.add_parser("audit", help="compare every key in the token with the policy (docs/hsm.md)")
    check.set_defaults(run=run_audit)


def initialize(options: argparse.Namespace) -> Shown:
    """Never over an initialised one: that would destroy its keys."""
    so_pin, pin = name_pin(options.so_pin_file), name_pin(options.pin_file)
    serial = preparation.initialize(options.module.absolute(), options.token, so_pin, pin)
    value = {"module": str(options.module), "token": options.token, "serial": serial}
    text = (
        f"token {options.token!r} initialised, serial number {serial}\n"
        f"keep the security officer's PIN away from this machine\n"
        f"next: mpserver init --realm lab --hsm {options.module} --token {options.token} --pin-file {options.pin_file}"
    )
    return Shown(value, text)


def show_status(options: argparse.Namespace) -> Shown:
    """Exit 75 where the token is away, 78 where the PIN or the settings are wrong."""
    pool = open_pool(Places(options.dir))
    value = pool.run("looking at the token", lambda session: _describe(pool, session))
    return Shown(value)


def run_audit(options: argparse.Namespace) -> Shown:
    """Exit 65 where a key is missing, too much, or not as the policy wants it."""
    places = Places(options.dir)
    findings = audit_token(places)
    value = [{"label": one.label, "key": one.key, "trouble": one.trouble, "next": one.then} for one in findings]
    troubled = [one for one in findings if one.trouble]
    text = "\n".join((*map(_as_text, findings), f"{len(findings)} keys, {len(troubled)} not as they have to be"))
    return Shown(value, text, exit_code=TROUBLE_EXIT if troubled else 0)


def open_pool(places: Places) -> Pool:
    """By keys/hsm.toml, asking nothing of the keys. Raises SetUp."""
    store = Keystore(places.keys)
    store.check_directories()
    if not has_settings(store):
        raise SetUp("the keys of this server lie in files: a token is chosen at `mpserver init --hsm`")
    return Pool(read_settings(store))


def audit_token(places: Places) -> list[Finding]:
    """What the token holds, against the policy, the ledger and the certificates."""
    connection = open_ledger(places)
    try:
        with explained(places.ledger):
            jobs = dict(connection.execute("SELECT name, state FROM jobs").fetchall())
    finally:
        connection.close()
    return audit(open_pool(places), Expected(dict(read_points(Keystore(places.keys))), jobs))


def read_points(store: Keystore) -> Iterator[tuple[str, bytes]]:
    """Of every pair that a certificate speaks of, by name."""
    for name in (ROOT, CA):
        certificate = read_certificate(store.path / f"{name}.crt", store.read_public(f"{name}.crt"))
        yield name, _point_of(certificate)
    for role in ROLES:
        yield role, read_role_certificate(store.path / f"{role}.cose", store.read_public(f"{role}.cose")).key


def _point_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _describe(pool: Pool, session: Session) -> dict[str, Any]:
    token, flags = session.token, int(session.token.slot.get_token().flags)
    offered = token.slot.get_mechanisms()
    lacks = [f"CKM_{name}" for name in policy.MECHANISMS if getattr(session.p11.Mechanism, name) not in offered]
    return {
        "module": str(pool.settings.module),
        "token": token.label,
        "serial": name_serial(token),
        "maker": f"{token.manufacturer_id} {token.model}".strip(),
        "firmware": ".".join(map(str, token.firmware_version)),
        "keys": len(preparation.list_keys(session)),
        "pin_tries": next((said for flag, said in _TRIES if flags & flag), "no failure told of"),
        "threads": "the module locks" if pool.module.is_locking else "the module cannot lock: one call at a time",
        "vault": {"SIGN": "HMAC in the token", "DERIVE": "HKDF in the token"}[find_way(session)],
        "lacks": lacks,
    }


def _as_text(one: Finding) -> str:
    sign = "FAIL" if one.trouble else "ok  "
    return f"{sign} {one.label} {one.key}".rstrip() + (f": {one.trouble}; next: {one.then}" if one.trouble else "")
