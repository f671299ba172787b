"""The appraisal policy of one product: what the OEM writes down, and its checks (docs/wire.md 6.3).

A product is a TOML file. An unknown key is an error; a rule left out is the strict one.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpissuer.endorsement import read_certificate
from mpissuer.errors import ProductWrong
from mpwire import mp, p256, registry
from mpwire.bundle import POLICY
from mpwire.errors import Malformed
from mpwire.limits import NAME_MAX_BYTES, SLOT_VALUE_MAX_BYTES, SLOTS_MAX
from mpwire.messages.grant import DESTINATIONS, KINDS_MADE, Manifest
from mpwire.secret import Secret
from mpwire.ueid import TPM_NAME_BYTES

ATTESTERS: Final = ("mp", "tpm", "card", "optee")
GRADES: Final = ("S", "K", "L")
SEALERS: Final = ("caam", "kernel-tee", "kernel-tpm", "kernel-dcp", "optee", "pkcs11", "tpm", "sim")
"""As sealers name themselves: "caam" is the kernel's trusted key on CAAM, "optee" a token that is OP-TEE's TA."""
KEYRINGS: Final = ("tpm", "pkcs11", "card", "sealed")
VERSION_MAX: Final = 2**31 - 1
CERTIFICATES_MAX: Final = 16
"""Requests in a Proof, and escrowed values in a Receipt. Source: wire.md 4.3, 4.5."""
NAMES_MAX_BYTES: Final = 2_048
"""Slot names in the claims, so that the rest of them fits into 3584 bytes. Source: mpwire.evidence."""
VALUES_MAX_BYTES: Final = 3 * SLOT_VALUE_MAX_BYTES
"""Inline values of one Grant; the other 32 KiB are framing. Source: mpwire.limits."""
CHAIN_BYTES: Final = 2_048
"""A device certificate and its authority's, at their largest."""
IMAGE_MAX_BYTES: Final = 2**40
"""A TiB: more is a mistake in the file."""
ESCROW_MAX_BYTES: Final = 4_096
"""Escrowed values of one Receipt, beside 64 slots in 16 KiB. Source: wire.md 4.5."""
KINDS_BUNDLED: Final = ("local", "random", "static", "file", "update-key")
"""Slot kinds of a product whose boards are served by bundles: a certificate needs a line."""
UPDATE_SLOTS: Final = ("update-oem", "update-owner", "update-service")
MPK_ID_BYTES: Final = 16
FAMILY_MAX_BYTES: Final = 32
"""Of a bundle's condition. Source: wire.md 11.1."""
MPMR_NAMES: Final = {"zero": mp.MPMR_ZERO, "optee": mp.MPMR_OPTEE, "optee-fixed": mp.MPMR_OPTEE_FIXED}


@dataclass(frozen=True, slots=True)
class SlotPolicy:
    """One slot: how its value is made and where it goes."""

    name: str
    kind: str
    destination: str = "sealed"
    length: int = 32
    """Bytes, for local and random."""
    value: Secret | None = None
    """For static."""
    version: int = 1
    escrow: bytes | None = None
    """For local: 65-byte point the device encrypts a copy to."""


@dataclass(frozen=True, slots=True)
class Product:
    """What boards of one product must show, and what they get."""

    name: str
    realm: str
    attesters: tuple[str, ...]
    grades: tuple[str, ...]
    life_cycle: str
    """closed or any."""
    profile: str
    mp_use: str
    mp_keys: tuple[bytes, ...]
    mpmrs: tuple[bytes, ...]
    srk_hashes: tuple[bytes, ...]
    eks: tuple[bytes, ...]
    """EK Names allowed, 34 bytes."""
    ek_roots: tuple[str, ...]
    """PEM of EK certificate authorities."""
    card_roots: tuple[str, ...]
    """PEM of authorities of card certificates."""
    optee_keys: tuple[bytes, ...]
    """Attester ids of attestation keys allowed, 32 bytes, where `optee_rule` is "listed"."""
    optee_rule: str
    """"listed", "imported" (any registered one), or in realm lab "first-use" (any at all, grade L)."""
    optee_measurements: tuple[bytes, ...] | None
    """Hashes of OP-TEE allowed; None where the file says "any"."""
    sealers: tuple[str, ...]
    """Sealers allowed; empty for any."""
    keyrings: tuple[str, ...]
    """Where device keys may live; empty for anywhere."""
    minimum_software: tuple[int, ...]
    slots: tuple[SlotPolicy, ...]
    digest: bytes
    """SHA-256 of the file as approved."""
    image: Manifest | None = None
    """The production image that its boards install next."""
    mpk: bytes | None = None
    """Of a product whose MP public key is a secret: the key's id, 16 bytes (docs/wire.md 11.2)."""
    family: str | None = None
    """SoC family that its bundles are for, as in hwmodel."""


_KEYS: Final[Mapping[str, type]] = {
    "name": str,
    "realm": str,
    "attesters": list,
    "grades": list,
    "life_cycle": str,
    "profile": str,
    "mp_use": str,
    "mp_keys": list,
    "mpk": str,
    "family": str,
    "mpmr": list,
    "srk_hashes": list,
    "eks": list,
    "ek_roots": list,
    "card_roots": list,
    "optee_keys": list,
    "optee_measurements": list,
    "sealers": list,
    "keyrings": list,
    "minimum_software": str,
    "slot": list,
    "image": dict,
}
_IMAGE_KEYS: Final[Mapping[str, type]] = {"version": str, "digest": str, "size": int}
_SLOT_KEYS: Final[Mapping[str, type]] = {
    "name": str,
    "kind": str,
    "destination": str,
    "length": int,
    "value_hex": str,
    "version": int,
    "escrow": str,
}


_TYPES: Final[Mapping[type, str]] = {
    str: "a text in quotes",
    list: "a list in [ ]",
    int: "a whole number",
    dict: "a table [ ]",
}


def read_product(text: str) -> Product:
    """Parse a product file. Raises ProductWrong naming the key and what would be right."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside its own error, tomllib lets pass what Python itself refuses
        raise ProductWrong(f"not TOML: {error}") from None
    _check_keys(tree, _KEYS)
    realm = _choice(tree, "realm", ("lab", "production"), "lab")
    optee_rule, optee_keys = _optee_keys(tree, realm)
    mp_use = _choice(tree, "mp_use", ("sign", "secret"), "sign")
    _check_use(tree, mp_use)
    return Product(
        name=_text(tree, "name"),
        realm=realm,
        attesters=_choices(tree, "attesters", ATTESTERS),
        grades=_choices(tree, "grades", GRADES),
        life_cycle=_choice(tree, "life_cycle", ("closed", "any"), "closed"),
        profile=_choice(tree, "profile", ("raw",), "raw"),
        mp_use=mp_use,
        mp_keys=_hexes(tree, "mp_keys", 32),
        mpmrs=tuple(_mpmr(one) for one in tree.get("mpmr", ["optee"])),
        srk_hashes=tuple(_srk_hash(one) for one in tree.get("srk_hashes", ())),
        eks=_hexes(tree, "eks", TPM_NAME_BYTES),
        ek_roots=_pems(tree, "ek_roots"),
        card_roots=_pems(tree, "card_roots"),
        optee_keys=optee_keys,
        optee_rule=optee_rule,
        optee_measurements=_measurements(tree),
        sealers=_choices(tree, "sealers", SEALERS) if "sealers" in tree else (),
        keyrings=_choices(tree, "keyrings", KEYRINGS) if "keyrings" in tree else (),
        minimum_software=read_version(tree.get("minimum_software", "0")),
        slots=_read_slots(tree.get("slot", []), mp_use),
        digest=hashlib.sha256(text.encode()).digest(),
        image=_read_image(tree["image"]) if "image" in tree else None,
        mpk=_hex(tree["mpk"], "mpk", MPK_ID_BYTES) if "mpk" in tree else None,
        family=_text(tree, "family", FAMILY_MAX_BYTES) if "family" in tree else None,
    )


def _check_use(tree: Mapping[str, Any], mp_use: str) -> None:
    """A class key signs or is a secret: what belongs to one use is an error beside the other."""
    if mp_use == "secret" and "mpk" not in tree:
        raise ProductWrong('mpk is missing: mp_use = "secret" names the key that `mpserver mp vault list` shows')
    wrong = ("mp_keys",) if mp_use == "secret" else ("mpk", "family")
    for key in wrong:
        if key in tree:
            raise ProductWrong(f'{key} does not go with mp_use = "{mp_use}"', key=key)


def read_version(text: str) -> tuple[int, ...]:
    """Dotted decimal, compared number by number: "1.10" is above "1.9". Raises ProductWrong."""
    parts = text.split(".")
    if not 1 <= len(parts) <= 6 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise ProductWrong(f"version {text!r} is not numbers joined by dots, like 1.4.2", key="minimum_software")
    return tuple(int(part) for part in parts)


def _check_keys(tree: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in tree.items():
        if key not in known:
            raise ProductWrong(f"unknown key {key!r}; known are {', '.join(known)}", key=key)
        if type(value) is not known[key]:
            raise ProductWrong(f"{key} is not {_TYPES[known[key]]}", key=key)


def _text(tree: Mapping[str, Any], key: str, most: int = NAME_MAX_BYTES) -> str:
    value = tree.get(key, "")
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= most or not value.isprintable():
        raise ProductWrong(f"{key} is missing or not a text of 1 to {most} bytes", key=key)
    return value


def _choice(tree: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = tree.get(key, default)
    if value not in allowed:
        raise ProductWrong(f"{key} = {value!r} is not one of {', '.join(allowed)}", key=key)
    return str(value)


def _choices(tree: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    values = tuple(tree.get(key, ()))
    if not values or any(value not in allowed for value in values):
        raise ProductWrong(f"{key} must list one or more of {', '.join(allowed)}", key=key)
    return values


def _srk_hash(one: object) -> bytes:
    """SHA-256 on HAB parts, SHA-512 on the i.MX8 with SECO."""
    value = _hex(one, "srk_hashes")
    if len(value) not in (32, 64):
        raise ProductWrong(f"srk_hashes: needs 32 or 64 bytes, got {len(value)}", key="srk_hashes")
    return value


def _hexes(tree: Mapping[str, Any], key: str, length: int) -> tuple[bytes, ...]:
    return tuple(_hex(one, key, length) for one in tree.get(key, ()))


def _hex(text: object, key: str, length: int | None = None) -> bytes:
    try:
        value = bytes.fromhex(text if isinstance(text, str) else "not hexadecimal")
    except ValueError:
        raise ProductWrong(f"{key}: {text!r} is not a text of hexadecimal digits", key=key) from None
    if length is not None and len(value) != length:
        raise ProductWrong(f"{key}: needs {length} bytes, got {len(value)}", key=key)
    return value


def _mpmr(one: object) -> bytes:
    return MPMR_NAMES[one] if isinstance(one, str) and one in MPMR_NAMES else _hex(one, "mpmr", 32)


def _pems(tree: Mapping[str, Any], key: str) -> tuple[str, ...]:
    try:
        for one in tree.get(key, []):
            read_certificate(x509.load_pem_x509_certificate(str(one).encode()).public_bytes(Encoding.DER))
    except (ValueError, Malformed):
        raise ProductWrong(f"{key}: each is one X.509 certificate in PEM", key=key) from None
    return tuple(map(str, tree.get(key, [])))


def _optee_keys(tree: Mapping[str, Any], realm: str) -> tuple[str, tuple[bytes, ...]]:
    """The rule, and the list that the rule "listed" is about."""
    match tree.get("optee_keys", []):
        case ["imported"]:
            return "imported", ()
        case ["first-use"]:
            if realm != "lab":
                raise ProductWrong("optee_keys: first-use is for realm lab; import the keys", key="optee_keys")
            return "first-use", ()
    return "listed", _hexes(tree, "optee_keys", 32)


def _measurements(tree: Mapping[str, Any]) -> tuple[bytes, ...] | None:
    return None if tree.get("optee_measurements") == ["any"] else _hexes(tree, "optee_measurements", 32)


def _point(text: object, key: str) -> bytes:
    point = _hex(text, key, p256.POINT_BYTES)
    try:
        p256.load_point(point)
    except Malformed:
        raise ProductWrong(f"{key}: not an uncompressed point of P-256", key=key) from None
    return point


def _read_image(tree: Mapping[str, Any]) -> Manifest:
    """As `mpserver product image` prints it; the path is made of the digest."""
    _check_keys(tree, _IMAGE_KEYS)
    digest = _hex(tree.get("digest"), "digest", 32)
    size = tree.get("size", 0)
    if not 1 <= size <= IMAGE_MAX_BYTES:
        raise ProductWrong(f"image: size must be 1 to {IMAGE_MAX_BYTES} bytes", key="size")
    return Manifest(digest, size, _text(tree, "version"), registry.IMAGE_PATH + digest.hex())


def _read_slots(rows: list[Any], mp_use: str) -> tuple[SlotPolicy, ...]:
    slots: list[SlotPolicy] = []
    for place, row in enumerate(rows):
        try:
            slots.append(_read_slot(row, {slot.name for slot in slots}, mp_use))
        except ProductWrong as error:
            error.slot = place
            raise
    if not 1 <= len(slots) <= SLOTS_MAX:
        raise ProductWrong(f"a product has 1 to {SLOTS_MAX} [[slot]] tables")
    if mp_use == "sign":
        _check_sizes(tuple(slots))
    return tuple(slots)


def _check_sizes(slots: tuple[SlotPolicy, ...]) -> None:
    """What no message could carry is found here, not after boards were counted."""
    certificates = [slot for slot in slots if slot.kind == "certificate"]
    escrowed = [slot for slot in slots if slot.escrow is not None]
    if len(certificates) > CERTIFICATES_MAX:
        raise ProductWrong(f"a product has at most {CERTIFICATES_MAX} certificate slots")
    if sum(len(slot.name.encode()) + 2 for slot in (*slots, *certificates)) + 36 * len(certificates) > NAMES_MAX_BYTES:
        raise ProductWrong("the slots' names are too long together for what an attester signs in one call")
    if sum(_count_bytes(slot) for slot in slots) > VALUES_MAX_BYTES:
        raise ProductWrong(f"the slots' values are longer together than the {VALUES_MAX_BYTES} bytes of one Grant")
    if any(slot.kind != "local" for slot in escrowed):
        raise ProductWrong("escrow belongs to kind local, and only there")
    if sum(slot.length for slot in escrowed) > ESCROW_MAX_BYTES or len(escrowed) > CERTIFICATES_MAX:
        raise ProductWrong(f"at most {CERTIFICATES_MAX} slots of together {ESCROW_MAX_BYTES} bytes fit into a receipt")


def _count_bytes(slot: SlotPolicy) -> int:
    if slot.kind == "static":
        return len(slot.value or b"")
    return {"random": slot.length, "certificate": CHAIN_BYTES}.get(slot.kind, 0)


def _read_slot(row: Any, taken: Set[str], mp_use: str) -> SlotPolicy:
    if not isinstance(row, dict):
        raise ProductWrong("slot must be written as [[slot]] tables")
    _check_keys(row, _SLOT_KEYS)
    name = _text(row, "name")
    if name in taken:
        raise ProductWrong(f"slot {name}: two slots have one name", key="name")
    kind = _choice(row, "kind", KINDS_MADE if mp_use == "sign" else KINDS_BUNDLED, "")
    if mp_use == "secret":
        _check_bundled(name, kind, row)
    length = row.get("length", 32)
    if not 16 <= length <= 4_096:
        raise ProductWrong(f"slot {name}: length must be 16 to 4096 bytes", key="length")
    version = row.get("version", 1)
    if not 1 <= version <= VERSION_MAX:
        raise ProductWrong(f"slot {name}: version must be 1 to {VERSION_MAX}", key="version")
    return SlotPolicy(
        name=name,
        kind=kind,
        destination=_choice(row, "destination", DESTINATIONS, "sealed"),
        length=length,
        value=_static_value(name, kind, row, is_wanted=mp_use == "sign"),
        version=version,
        escrow=_point(row["escrow"], "escrow") if "escrow" in row else None,
    )


def _check_bundled(name: str, kind: str, row: Mapping[str, Any]) -> None:
    """A slot that comes by a bundle (docs/wire.md 11.1, 11.5)."""
    if name == POLICY:
        raise ProductWrong(f"slot {name}: that name is for the rights of update authorities", key="name")
    if (kind == "update-key") != (name in UPDATE_SLOTS):
        raise ProductWrong(f"slot {name}: {', '.join(UPDATE_SLOTS)} are the slots of kind update-key", key="kind")
    if "escrow" in row:
        raise ProductWrong(f"slot {name}: a bundle's receipt carries no escrow", key="escrow")


def _static_value(name: str, kind: str, row: Mapping[str, Any], *, is_wanted: bool) -> Secret | None:
    """`is_wanted`: in the file. The value of a bundle's slot may come with the command that makes the bundle."""
    if (kind == "static") != ("value_hex" in row) and (is_wanted or kind != "static"):
        raise ProductWrong(f"slot {name}: value_hex belongs to kind static, and only there", key="value_hex")
    if "value_hex" not in row:
        return None
    digits = row["value_hex"]
    if len(digits) % 2 or not digits or set(digits) - set("0123456789abcdefABCDEF"):
        # the digits are never echoed: they are a secret
        raise ProductWrong(f"slot {name}: value_hex is not pairs of hexadecimal digits alone", key="value_hex")
    value = bytes.fromhex(digits)
    if len(value) > SLOT_VALUE_MAX_BYTES:
        raise ProductWrong(f"slot {name}: value_hex is longer than {SLOT_VALUE_MAX_BYTES} bytes", key="value_hex")
    return Secret(value)
