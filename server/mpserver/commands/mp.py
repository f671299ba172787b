"""mpserver mp: keys and signatures of manufacturing protection, as engineers have them: U-Boot logs and hex.

Exit codes beyond those of every command: 65 the log or the signature does not hold, 77 nothing was registered because
a person has to act first (docs/operate.md).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from mpissuer.ports import RegisteredKey
from mpserver.commands import comparing, vault
from mpserver.commands.comparing import id_of
from mpserver.console import LOG_MAX_BYTES, Console, read_console
from mpserver.errors import LogWrong, NeedsPerson, Usage
from mpserver.handed import read_file, read_fingerprint, read_hex, read_value
from mpserver.hiding import burn
from mpserver.keyrecords import NOT_REGISTERED, PART_MAX
from mpserver.mpfinding import GIVEN, KNOWN, PRODUCT_WORDS, UNKNOWN, Finding, LogFinding, explain, weigh
from mpserver.mpuse import PUBLISHES, is_secret, name_key
from mpserver.office import Office
from mpserver.output import Shown
from mpserver.state import Places, State, open_ledger, open_state
from mpserver.store.products import read_products
from mpserver.store.reading import SqlCatalogue
from mpwire import mp

MESSAGE_MAX_BYTES: Final = 65_536
"""U-Boot signs what fits into memory; OP-TEE takes 4096."""
NEEDS_PERSON: Final = NeedsPerson.exit_code
DOES_NOT_HOLD: Final = LogWrong.exit_code
MPMRS: Final = {PRODUCT_WORDS[name]: value for name, value in KNOWN.items()}


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    log = verbs.add_parser("import-log", help="read a U-Boot console with mfgprot output, and register its key")
    log.add_argument("file", type=Path, metavar="FILE", help='"-" is standard input')
    log.add_argument("--confirm", metavar="FINGERPRINT", help="register the key if this is its fingerprint")
    log.add_argument("--mp-use", choices=("sign", "secret"), default="sign", help="secret: see `mp vault import`")
    log.add_argument("--use", choices=("class", "test"), default="class", help="test: the key of open parts")
    log.add_argument("--part", type=_part, metavar="TEXT", help="part type, to tell keys apart in lists")
    _add_mpmr(log)
    log.set_defaults(run=import_log)
    verify = verbs.add_parser("verify", help="verify an MP signature and say why it does or does not hold")
    verify.add_argument("--key", required=True, metavar="KEY", help="X || Y in hex, a registered key's id, or @FILE")
    verify.add_argument("--message", required=True, metavar="HEX", help="what was signed; @FILE is taken as it is")
    verify.add_argument("--signature", required=True, metavar="HEX", help="r || s, 64 bytes, or @FILE")
    _add_mpmr(verify)
    verify.set_defaults(run=verify_signature)
    text = "is the MP key per class or per device? two boards of one product tell"
    comparing.configure_compare(verbs.add_parser("compare", help=text))
    verbs.add_parser("answers", help="what mp compare found").set_defaults(run=comparing.show_answers)
    vault.configure(verbs.add_parser("vault", help="MP public keys that are secrets: for bundles, and never to sign"))


def _part(text: str) -> str:
    if not text.isprintable() or len(text) > PART_MAX:
        raise Usage(f"--part is a printable text of at most {PART_MAX} letters")
    return text


def _add_mpmr(parser: argparse.ArgumentParser) -> None:
    words = ", ".join(MPMRS)
    parser.add_argument("--mpmr", metavar="MPMR", help=f"{words}, or 64 hex digits; left out: all known ones are tried")


def import_log(options: argparse.Namespace) -> Shown:
    """Registers nothing but what was confirmed by its whole fingerprint."""
    if options.mp_use == "secret":
        raise Usage(f"--mp-use secret: {NOT_REGISTERED}: mpserver mp vault import {options.file}")
    console = read_console(read_file(options.file, LOG_MAX_BYTES))
    found = weigh(console, _read_mpmr(options.mpmr))
    state = open_state(options.dir)
    try:
        _check_hidden(state, found)
        value = _describe(console, found, options)
        if found.key is None or found.key_id is None:
            return _refuse(value, "no-key", "no whole public key is in the log: run `mfgprot pubk` on the board")
        if found.verified:
            burn(state, name_key(found.key), "a signature in a log")
        known = SqlCatalogue(state.connection, state.authority).registered_key(found.key_id)
        if found.curve != "P-256":
            words = "MP on P-384 is not registered: nobody verified a real signature of one"
            return _refuse(value, "profile-unverified", words)
        if console.is_open and options.use == "class":
            words = "the log is of an open part, whose key is no class key: close it, or register the key --use test"
            return _refuse(value, "open-part", words)
        part = options.part if options.part is not None or known is None else known.part
        key = RegisteredKey(found.key_id, "mp", b"\x04" + found.key, "silicon", "sign", part or "", options.use)
        value["pinned_by"] = _find_products(state, key.key_id)
        if known != key and not _confirm(value, key.key_id.hex(), options):
            words = (
                "nothing was registered. Have the fingerprint read out by whoever made the log, then:"
                f" mpserver mp import-log {options.file} --confirm FINGERPRINT"
            )
            return _refuse(value, "not-confirmed", words)
        return _register(state, key, value)
    finally:
        state.close()


def _check_hidden(state: State, found: LogFinding) -> None:
    """Before anything of the key is shown. Raises NeedsPerson: it is a secret, and by a signature none any more."""
    if found.key is None or found.curve != "P-256":
        return
    mpk_id = name_key(found.key)
    if not is_secret(state, mpk_id):
        return
    if found.signatures:
        burn(state, mpk_id, "a signature in a log")
        raise NeedsPerson(
            f"mp-use: this log holds a signature by MP key {mpk_id.hex()}, which is a secret, and {PUBLISHES}. Nothing"
            " was registered; deliver nothing more under this key: another SRK set makes another one"
        )
    raise NeedsPerson(f"mp-use: this is the log of MP key {mpk_id.hex()}, which is a secret: it must never sign")


def _confirm(value: dict[str, Any], fingerprint: str, options: argparse.Namespace) -> bool:
    """False where nobody said anything. Raises NeedsPerson for another fingerprint."""
    said = options.confirm
    if said is None and _may_ask(options):
        print(_as_lines(value), file=sys.stderr)
        print("to register this key, paste its fingerprint from another source: ", end="", file=sys.stderr, flush=True)
        said = sys.stdin.readline()
    if said is None or not said.strip():
        return False
    if read_fingerprint(said) != fingerprint:
        raise NeedsPerson("that is not the fingerprint of the key in this log; nothing was registered")
    return True


def _register(state: State, key: RegisteredKey, value: dict[str, Any]) -> Shown:
    value["new"] = Office(state).import_key(key)
    value["registered"] = True
    words = "registered" if value["new"] else "was registered already"
    then = "" if value["pinned_by"] else "; next: the line above in the product file, then mpserver product add"
    return Shown(value, f"{_as_lines(value)}\nkey {key.key_id.hex()} {words}{then}")


def _refuse(value: dict[str, Any], why: str, words: str) -> Shown:
    """Shown all the same, with the exit code that says a person has to act."""
    value["refused"] = why
    return Shown(value, f"{_as_lines(value)}\n{words}", NEEDS_PERSON)


def _describe(console: Console, found: LogFinding, options: argparse.Namespace) -> dict[str, Any]:
    """What --json prints of a key that signs."""
    lines = [] if found.key_id is None or found.curve != "P-256" else [f'mp_keys = ["{found.key_id.hex()}"]']
    if lines and found.mpmr in PRODUCT_WORDS:
        lines.append(f'mpmr = ["{PRODUCT_WORDS[found.mpmr]}"]')
    return {
        "verified": found.verified,
        "mpmr": found.mpmr,
        "digest": None if found.digest is None else found.digest.hex(),
        "curve": found.curve,
        "key_id": None if found.key_id is None else found.key_id.hex(),
        "public_key": None if found.key is None else found.key.hex(),
        "signatures": found.signatures,
        "mp_use": "sign",
        "use": options.use,
        "registered": False,
        "new": False,
        "refused": None,
        "pinned_by": [],
        "product_lines": lines,
        "failures": [{"line": one.line, "said": one.text, "cause": one.cause} for one in console.failures],
        "redacted": console.redacted,
    }


def _find_products(state: State, key_id: bytes) -> list[str]:
    return [name for name, one in read_products(state.connection, state.authority).items() if key_id in one.mp_keys]


def _may_ask(options: argparse.Namespace) -> bool:
    """Somebody sits there, and standard input is his and not the log."""
    return not options.json and str(options.file) != "-" and sys.stdin is not None and sys.stdin.isatty()


def _as_lines(value: dict[str, Any]) -> str:
    lines = [f'note         line {one["line"]}: "{one["said"]}": {one["cause"]}' for one in value["failures"]]
    if value["redacted"]:
        lines.append("note         the digits of a public key were taken out of this log")
    rows = (
        ("curve", value["curve"]),
        ("fingerprint", value["key_id"]),
        ("public key", value["public_key"]),
        ("MPMR", _name_mpmr(value["mpmr"]) if value["digest"] else "not told: no digest is in the log"),
        ("digest", value["digest"]),
        ("signature", _tell_signature(value)),
        ("products", ", ".join(value["pinned_by"])),
        *(("product file", one) for one in value["product_lines"]),
    )
    return "\n".join([*lines, *(f"{name:<13}{one}" for name, one in rows if one)])


def _tell_signature(value: dict[str, Any]) -> str:
    if not value["signatures"]:
        return ""
    told = {True: "by the key in this log", None: "not verified: the log lacks the key, or SECO's digest is unknown"}
    return f"{value['signatures']} in the log, {told[value['verified']]}; {PUBLISHES}"


def _name_mpmr(name: str) -> str:
    known = {
        "zero": "zero: no OP-TEE filled it",
        "optee-constant": "OP-TEE's constant",
        "optee-constant-fixed": "OP-TEE's constant, as mended",
        GIVEN: "the one given",
        UNKNOWN: "unknown: an OEM's own; the digest printed fits no known value",
    }
    return known[name]


def verify_signature(options: argparse.Namespace) -> Shown:
    """Exit 0 verified, 65 not, with the reason in either case."""
    given = _read_mpmr(options.mpmr)
    message = read_value("--message", options.message, MESSAGE_MAX_BYTES)
    signature = read_value("--signature", options.signature, MESSAGE_MAX_BYTES)
    key, is_registered = _read_verifying_key(options)
    if not len(message) >= 1:
        raise Usage("--message is empty; the chip signs no empty message")
    if len(signature) != 64:
        der = ": this is DER, the chip returns r || s" if signature[:1] == b"\x30" else ""
        raise Usage(f"--signature has {len(signature)} bytes, r || s of P-256 has 64{der}")
    found = explain(b"\x04" + key, message, signature, given)
    mp_use = _remember(options.dir, key, found, is_registered)
    value = {
        "verified": found.verified,
        "mpmr": found.mpmr,
        "digest": None if found.digest is None else found.digest.hex(),
        "curve": "P-256",
        "key_id": (name_key(key) if mp_use == "secret" else mp.key_id(b"\x04" + key)).hex(),
        "tried": [{"mpmr": name, "digest": digest.hex()} for name, digest in found.tried],
        "why": _tell_why(found, given is not None),
        "mp_use": mp_use,
        "burnt": mp_use == "secret" and found.mpmr != UNKNOWN,
    }
    return Shown(value, _tell_verdict(value, found), 0 if found.verified else DOES_NOT_HOLD)


def _remember(directory: Path, key: bytes, found: Finding, is_registered: bool) -> str | None:
    """The use of this key on this server, if there is one; that it signed is kept, so that it becomes no secret."""
    if not Places(directory).ledger.exists():
        return None
    state, mpk_id = open_state(directory), name_key(key)
    try:
        if found.mpmr != UNKNOWN:
            burn(state, mpk_id, "a signature verified")
        if is_secret(state, mpk_id):
            return "secret"
    finally:
        state.close()
    return "sign" if is_registered else None


def _tell_why(found: Finding, was_given: bool) -> str:
    if found.verified:
        return f"verified with MPMR {found.mpmr}"
    if found.mpmr != UNKNOWN and was_given:
        return f"not with the MPMR given: the chip hashed {found.mpmr}"
    return found.hint


def _tell_verdict(value: dict[str, Any], found: Finding) -> str:
    lines = [f"{'verified' if found.verified else 'NOT verified'}: {value['why']}"]
    if not found.verified:
        lines += [f"tried MPMR {name}: digest {digest.hex()}" for name, digest in found.tried]
    elif found.digest is not None:
        lines.append(f"digest {found.digest.hex()}")
    if value["burnt"]:
        lines.append("THIS KEY IS BURNT: its use is secret, and this signature published it")
    return "\n".join([*lines, f"note: {PUBLISHES}"])


def _read_verifying_key(options: argparse.Namespace) -> tuple[bytes, bool]:
    """X || Y, and whether it is registered. An id is looked up; the ledger is asked only where there is one."""
    raw = read_value("--key", options.key, MESSAGE_MAX_BYTES)
    key_id = raw if len(raw) == 32 else id_of(raw)
    known = _look_up(options.dir, key_id, required=len(raw) == 32)
    if known is not None and known.public_key is not None:
        return known.public_key[1:], True
    point = raw[1:] if len(raw) == 65 else raw
    if len(point) != 64:
        raise Usage("--key is of P-384: what the SECO hashes is not known, so nothing can be verified")
    return point, False


def _look_up(directory: Path, key_id: bytes, required: bool) -> RegisteredKey | None:
    if not required and not Places(directory).ledger.exists():
        return None
    connection = open_ledger(Places(directory))
    try:
        row = connection.execute(
            "SELECT key_id, kind, public_key, origin, mp_use, part, use FROM attester_keys"
            " WHERE key_id = ? AND kind = 'mp'",
            (key_id,),
        ).fetchone()
    finally:
        connection.close()
    if row is None and required:
        raise NeedsPerson(f"no MP key {key_id.hex()} is registered; `mpserver key list` shows all")
    return RegisteredKey(*row) if row else None


def _read_mpmr(told: str | None) -> bytes | None:
    if told is None or told in MPMRS:
        return None if told is None else MPMRS[told]
    raw = read_hex(told)
    if raw is None or len(raw) != mp.MPMR_BYTES:
        raise Usage(f"--mpmr is {', '.join(MPMRS)}, or 64 hex digits")
    return raw
