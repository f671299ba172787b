"""mpserver key: which attester keys are the OEM's, and whose signed lists say so (docs/wire.md 5.5).

`new-signer` and `sign-list` need no state directory: they are for a machine that is never on line.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, Final

from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson, Usage
from mpserver.handed import read_file, read_fingerprint, read_hex
from mpserver.importlist import FIRST_BYTE, THUMBPRINT_BYTES, read_list, write_list
from mpserver.keyrecords import KEY_FILE_MAX_BYTES, read_key_records
from mpserver.keystore import load_key_file, make_key_file
from mpserver.office import Office
from mpserver.output import Shown, write_new
from mpserver.state import Places, open_ledger, open_state
from mpwire import p256
from mpwire.cose import thumbprint
from mpwire.errors import Malformed, Unauthentic
from mpwire.p256 import SoftKey

SEQUENCE_MAX: Final = 2**63 - 1
POINT_FILE_MAX_BYTES: Final = 4_096
"""A point in hexadecimal, or a PEM of some 180 bytes."""
_CONFIRM: Final = "have the thumbprint read out by whoever holds the key, then: --confirm THUMBPRINT"


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("import", help="register attester keys from a signed list or, in realm lab, from JSON")
    add.add_argument("file", type=Path, metavar="FILE", help='"-" is standard input')
    add.set_defaults(run=import_file)
    verbs.add_parser("list", help="registered keys; public keys are not printed").set_defaults(run=list_keys)
    trust = verbs.add_parser("trust-signer", help="take lists of this signer from now on")
    trust.add_argument("point", metavar="POINT|FILE", help="130 hex digits, or a file with them or a PEM public key")
    trust.add_argument("--confirm", metavar="THUMBPRINT", help="do it if this is the key's thumbprint")
    trust.set_defaults(run=trust_signer)
    dismiss = verbs.add_parser("dismiss-signer", help="take no list of this signer any more, for good")
    dismiss.add_argument("thumbprint", help="as `key signers` prints it, whole")
    dismiss.set_defaults(run=dismiss_signer)
    verbs.add_parser("signers", help="whose lists are taken, and the last one of each").set_defaults(run=list_signers)
    new = verbs.add_parser("new-signer", help="off line: make the key of a signer")
    new.add_argument("--out", required=True, type=Path, metavar="FILE", help="private key, PEM, mode 600")
    new.set_defaults(run=make_signer)
    sign = verbs.add_parser("sign-list", help="off line: sign a JSON list of keys")
    sign.add_argument("list", type=Path, metavar="LIST.json", help='as `key import` takes it; "-" is standard input')
    sign.add_argument("--key", required=True, type=Path, metavar="FILE", help="of new-signer")
    sign.add_argument("--sequence", required=True, type=_sequence, metavar="N", help="above that of the list before")
    sign.add_argument("--realm", choices=("lab", "production"), default="lab", help="default %(default)s")
    sign.add_argument("--out", required=True, type=Path, metavar="FILE", help="for `key import`")
    sign.set_defaults(run=sign_list)


def import_file(options: argparse.Namespace) -> Shown:
    """All of a file's keys are registered, or none."""
    raw = read_file(options.file, KEY_FILE_MAX_BYTES)
    if raw.startswith(FIRST_BYTE):
        return _import_signed(options, raw)
    keys = _read_json(options.file, raw)
    state = open_state(options.dir)
    try:
        new = Office(state).import_keys(keys)
    finally:
        state.close()
    note = "; unsigned, which realm lab alone takes"
    if len(keys) != 1:
        value: dict[str, Any] = {"signed": False, "keys": [one.key_id.hex() for one in keys], "new": new}
        return Shown(value, _count(new, keys) + note)
    key = keys[0]
    value = {"signed": False, "key_id": key.key_id.hex(), "kind": key.kind, "origin": key.origin, "new": new == 1}
    words = "registered" if new else "was registered already"
    return Shown(value, f"key {key.key_id.hex()} ({key.origin}) {words}{note}")


def _import_signed(options: argparse.Namespace, raw: bytes) -> Shown:
    state = open_state(options.dir)
    try:
        office = Office(state)
        told = read_list(raw, state.realm, office.trusted_signers())
        new = office.import_list(told)
    except (Malformed, Unauthentic) as error:
        raise type(error)(f"{options.file}: {error}") from error
    finally:
        state.close()
    value = {
        "signed": True,
        "signer": told.signer.hex(),
        "sequence": told.sequence,
        "digest": told.digest.hex(),
        "keys": [one.key_id.hex() for one in told.keys],
        "new": new,
    }
    return Shown(value, f"list {told.sequence} of signer {told.signer.hex()}\n{_count(new, told.keys)}")


def _count(new: int, keys: "list[RegisteredKey] | tuple[RegisteredKey, ...]") -> str:
    return f"{len(keys)} keys: {new} registered, {len(keys) - new} were registered already"


def list_keys(options: argparse.Namespace) -> Shown:
    """Not the public keys: one of a part used as secret must never be shown (design section 4)."""
    connection = open_ledger(Places(options.dir))
    try:
        rows = connection.execute(
            "SELECT key_id, kind, origin, mp_use, use, part FROM attester_keys ORDER BY kind, key_id"
        ).fetchall()
    finally:
        connection.close()
    titles = ("key_id", "kind", "origin", "mp_use", "use", "part")
    value = [dict(zip(titles, (row[0].hex(), *row[1:]), strict=True)) for row in rows]
    return Shown(value, "" if value else "no keys: mpserver key import FILE")


def trust_signer(options: argparse.Namespace) -> Shown:
    """Shows the thumbprint, and does nothing before the same came from another source."""
    point = _read_point(options.point)
    name = thumbprint(point).hex()
    value = {"thumbprint": name, "trusted": False, "new": False}
    state = open_state(options.dir)
    try:
        office = Office(state)
        if bytes.fromhex(name) not in office.trusted_signers():
            if options.confirm is None:
                text = f"thumbprint  {name}\nnot trusted, nothing was done: {_CONFIRM}"
                return Shown(value, text, NeedsPerson.exit_code)
            if read_fingerprint(options.confirm) != name:
                raise NeedsPerson("that is not the thumbprint of this key; nothing was done")
            value["new"] = office.trust_signer(point)
        value["trusted"] = True
    finally:
        state.close()
    words = "is trusted: its lists register keys from now on" if value["new"] else "was trusted already"
    return Shown(value, f"signer {name} {words}")


def dismiss_signer(options: argparse.Namespace) -> Shown:
    """Takes one person and no confirmation: a stolen key has to end at once, and another signer is soon made."""
    name = read_hex(read_fingerprint(options.thumbprint))
    if name is None or len(name) != THUMBPRINT_BYTES:
        raise Usage(f"a thumbprint has {2 * THUMBPRINT_BYTES} hex digits; `mpserver key signers` shows them")
    state = open_state(options.dir)
    try:
        new = Office(state).dismiss_signer(name)
    finally:
        state.close()
    words = "is dismissed; what its lists registered stays" if new else "was dismissed already"
    return Shown({"thumbprint": name.hex(), "trusted": False, "new": new}, f"signer {name.hex()} {words}")


def _read_point(told: str) -> bytes:
    """Raises Usage: it is neither a point nor a file with one."""
    raw = read_hex(told)
    try:
        if raw is None:
            raw = _read_point_file(Path(told))
        p256.load_point(raw)
    except Malformed:
        raise Usage(f"{told[:80]}: no point of P-256 (130 hex digits, 04 first) and no file with one") from None
    return raw


def _read_point_file(path: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    raw = read_file(path, POINT_FILE_MAX_BYTES)
    if b"PRIVATE KEY" in raw:
        raise Usage(f"{path} holds a private key, which belongs off line: give the point that new-signer printed")
    if not raw.lstrip().startswith(b"-----BEGIN"):
        return read_hex(raw.decode("ascii", "replace")) or b""
    try:
        der = load_pem_public_key(raw).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("p256-spki") from None
    return p256.read_spki(der)


def list_signers(options: argparse.Namespace) -> Shown:
    """In the order they were trusted."""
    connection = open_ledger(Places(options.dir))
    try:
        rows = connection.execute(
            "SELECT thumbprint, dismissed_at IS NULL, added_at, count(sequence), coalesce(max(sequence), 0)"
            " FROM import_signers LEFT JOIN import_lists ON signer = thumbprint GROUP BY thumbprint"
            " ORDER BY added_at, thumbprint"
        ).fetchall()
    finally:
        connection.close()
    value = [
        {
            "thumbprint": row[0].hex(),
            "state": "trusted" if row[1] else "dismissed",
            "trusted_at": row[2],
            "lists": row[3],
            "last_sequence": row[4],
        }
        for row in rows
    ]
    return Shown(value, "" if value else "no signers: mpserver key trust-signer POINT|FILE")


def make_signer(options: argparse.Namespace) -> Shown:
    """The private key stays where it was made; the point goes to the server, the thumbprint another way."""
    if options.out.exists():
        raise Usage(f"{options.out} exists already")
    point = SoftKey(make_key_file(options.out)).public_key()
    value = {"file": str(options.out), "point": point.hex(), "thumbprint": thumbprint(point).hex()}
    text = (
        f"{options.out}: private key, mode 600; keep it off line, and a copy of it\n"
        f"point       {value['point']}\n"
        f"thumbprint  {value['thumbprint']}\n"
        "on the server: mpserver key trust-signer POINT --confirm THUMBPRINT; tell it the thumbprint by another way"
    )
    return Shown(value, text)


def sign_list(options: argparse.Namespace) -> Shown:
    """What it signs is what a server would read; no key is printed."""
    keys = _read_json(options.list, read_file(options.list, KEY_FILE_MAX_BYTES))
    if options.realm == "production" and any(key.origin == "simulated" for key in keys):
        raise Usage("a simulated part's key cannot be registered in realm production")
    if options.out.exists():
        raise Usage(f"{options.out} exists already")
    if not options.key.exists():
        raise Usage(f"cannot read {options.key}: there is no such file; `mpserver key new-signer` makes one")
    signer = SoftKey(load_key_file(options.key))
    try:
        raw = write_list(options.realm, options.sequence, keys, signer)
    except Malformed as error:
        raise Usage(f"{options.list}: {error}") from error
    write_new(options.out, raw, mode=0o600)  # with an MP key of mp_use secret it holds a secret
    kinds = Counter(key.kind for key in keys)
    name = thumbprint(signer.public_key()).hex()
    value = {
        "file": str(options.out),
        "realm": options.realm,
        "signer": name,
        "sequence": options.sequence,
        "records": dict(kinds),
    }
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return Shown(value, f"{options.out}: list {options.sequence} for realm {options.realm}, {counted}\nsigner  {name}")


def _read_json(path: Path, raw: bytes) -> list[RegisteredKey]:
    try:
        return read_key_records(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Usage(f"{path} is neither a signed list nor UTF-8 text: {error.reason}") from error
    except Usage as error:
        raise Usage(f"{path}: {error}") from error


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or not 1 <= int(text) <= SEQUENCE_MAX:
        raise Usage(f"--sequence {text[:20]}: a whole number from 1 on")
    return int(text)
