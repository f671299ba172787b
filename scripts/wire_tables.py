"""Writes the tables of docs/wire.md from the tables that parse the wire: python scripts/wire_tables.py [--check].

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; everything else in the document is written by hand.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from mpagent.hal.ports import LifeCycle, Provenance
from mpwire import evidence, labels, limits, registry
from mpwire.inspection import ALG_NAMES, HEADERS
from mpwire.keys import PublicKey
from mpwire.messages import bundle, eat, grant, issuer, plain
from mpwire.shape import Converted, Integer, ListOf, MapOf, Octets, OneOf, Row, Shape, TableOf, Text

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs/wire.md"

SHAPES: Final[Mapping[str, MapOf[Any]]] = {
    one.title: one
    for module in (plain, eat, grant, issuer, bundle)
    for one in vars(module).values()
    if isinstance(one, MapOf)
}
"""Every table of fields on the wire, by title."""


def name_shape(shape: Shape) -> str:
    """A shape in the words of section 1."""
    for kind, words in _WORDS.items():
        if isinstance(shape, kind):
            return words(shape)
    raise TypeError(f"no words for {type(shape).__name__}")


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}..{high}"


def _name_integer(shape: Any) -> str:
    if shape.high == 2**63 - 1:
        return f"int from {shape.low}" if shape.low else "int"
    return f"int {shape.low}..{shape.high}"


_WORDS: Final[Mapping[type[Shape], Callable[[Any], str]]] = {
    MapOf: lambda shape: f"[{shape.title}](#{shape.title})",
    Octets: lambda shape: f"bstr {_range(shape.low, shape.high)}",
    Text: lambda shape: f"text {shape.high}",
    Integer: _name_integer,
    OneOf: lambda shape: " / ".join(f"`{one}`" for one in shape.allowed),
    ListOf: lambda shape: f"array {_range(shape.low, shape.high)} of {name_shape(shape.of)}",
    Row: lambda shape: "[" + ", ".join(map(name_shape, shape.places)) + "]",
    TableOf: lambda shape: f"map 0..{shape.high} of {name_shape(shape.key)} → {name_shape(shape.of)}",
    PublicKey: lambda _: "COSE_Key",
    Converted: lambda shape: name_shape(shape.inner),
}


def draw(head: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def draw_fields(shape: MapOf[Any]) -> str:
    """The keys of one map, in the order of the encoding."""
    rows = [(key, "", f"`{value}`", "yes", _name_constant(shape, key)) for key, value in shape.constants.items()]
    rows += [
        (one.key, f"`{one.name}`", name_shape(one.shape), "yes" if one.required else "no", one.note)
        for one in shape.fields
    ]
    rows.sort(key=lambda row: (row[0] < 0, abs(row[0])))
    return draw(("key", "name", "type", "required", "meaning"), rows)


def _name_constant(shape: MapOf[Any], key: int) -> str:
    message = key == 0 and shape.constants[0] == getattr(registry, shape.title.upper(), None)
    return "message number" if message and shape.title not in ("grant", "receipt") else "wire version"


def draw_registry() -> str:
    """Every number that is not a plain key of one map."""
    claims = {field.key: (field.name, field.note) for field in eat.CLAIMS.fields}
    headers = {key: (name, note) for key, (name, _, note) in HEADERS.items()}
    headers[registry.HEADER_CRIT] = ("crit", "no critical header is understood: any list is refused")
    headers[registry.HEADER_X5CHAIN] = ("x5chain", "reserved: a card's certificates stand in the Hello")
    rows: list[Sequence[object]] = []
    for name, value in vars(registry).items():
        if name.startswith("ALG_"):
            rows.append((value, "COSE algorithm", ALG_NAMES[value], ALGORITHMS[value]))
        elif name.startswith("HEADER_"):
            rows.append((value, "COSE header", *headers[value]))
        elif name.startswith("CLAIM_"):
            rows.append((value, "EAT claim", *claims[value]))
    return draw(("id", "is a", "name", "meaning"), rows)


ALGORITHMS: Final[Mapping[int, str]] = {
    registry.ALG_ES256: "ECDSA P-256, SHA-256, r ‖ s (RFC 9053 section 2.1)",
    registry.ALG_MP_ES256: "ECDSA P-256 over SHA-256(MPMR ‖ Sig_structure), r ‖ s (9)",
    registry.ALG_MP_ES384: "reserved: refused as `profile-unverified`",
    registry.ALG_MP_ES512: "reserved: refused as `profile-unverified`",
    registry.ALG_TPM_QUOTE_ES256: "[TPMS_ATTEST, r ‖ s]; the quote's extraData = SHA-256(Sig_structure) (4.3)",
    registry.ALG_OPTEE_PS256: "[measurement, RSASSA-PSS of 384 bytes] by OP-TEE's attestation PTA (4.3)",
}
OBJECTS: Final = (
    ("evidence, outer", labels.TYP_EVIDENCE, labels.AAD_EVIDENCE, "attester"),
    ("evidence, inner (EAT)", labels.TYP_EAT, labels.AAD_EAT, "device key `sign`"),
    ("Grant", labels.TYP_GRANT, labels.AAD_GRANT, "issuer, role `grant`"),
    ("Receipt", labels.TYP_RECEIPT, labels.AAD_RECEIPT, "device key `sign`"),
    ("head", labels.TYP_HEAD, labels.AAD_HEAD, "issuer, role `head`"),
    ("issuer certificate", labels.TYP_ISSUER_CERTIFICATE, labels.AAD_ISSUER_CERTIFICATE, "root, or role key"),
    ("trust update", labels.TYP_TRUST_UPDATE, labels.AAD_TRUST_UPDATE, "root"),
    ("import list", labels.TYP_IMPORT, labels.AAD_IMPORT, "pinned signer of the OEM"),
    ("bundle", labels.TYP_BUNDLE, labels.AAD_BUNDLE, "issuer, role `bundle`, or an update authority"),
    ("receipt of a bundle", labels.TYP_BUNDLE_RECEIPT, labels.AAD_BUNDLE_RECEIPT, "device key `sign`"),
)
LIFE_CYCLE: Final[Mapping[LifeCycle, str]] = {
    LifeCycle.OPEN: "open: HAB or AHAB does not enforce",
    LifeCycle.CLOSED_PENDING_REBOOT: "the closed fuse is blown, this boot is still open",
    LifeCycle.CLOSED: "closed, and this boot is closed as well",
    LifeCycle.FIELD_RETURN: "field return: debugging is open again",
}
PROVENANCE: Final[Mapping[Provenance, str]] = {
    Provenance.ATTESTER: "the attesting hardware itself put it under its signature",
    Provenance.SECURE_WORLD: "the secure world read it",
    Provenance.KERNEL: "the kernel of the provisioning image read it",
    Provenance.IMAGE: "the provisioning image states it",
}


def draw_limits() -> str:
    """Every bound with the reason that stands beside it in the code."""
    rows = [(f"`{name}`", f"{getattr(limits, name):,}", words) for name, words in _read_notes(limits.__file__)]
    rows.append(
        ("`CLAIMS_MAX_BYTES`", f"{evidence.CLAIMS_MAX_BYTES:,}", "EAT payload: keeps the Sig_structure signable")
    )
    return draw(("bound", "value", "reason"), rows)


def _read_notes(path: str) -> Iterator[tuple[str, str]]:
    body = ast.parse(Path(path).read_text()).body
    for one, after in pairwise(body):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
            note = ast.literal_eval(after.value)
            yield one.target.id, " ".join(re.sub(r"\s+Source:.*", "", note, flags=re.DOTALL).split())


def draw_objects() -> str:
    """What each signature is told apart by."""
    return draw(
        ("object", "`typ` (header 16)", "external_aad", "signed by"),
        [(name, f"`{typ}`", f"`{aad.decode()}`", who) for name, typ, aad, who in OBJECTS],
    )


def draw_all() -> dict[str, str]:
    """Every table, by the name in its marker."""
    return {
        **{title: draw_fields(shape) for title, shape in SHAPES.items()},
        "registry": draw_registry(),
        "limits": draw_limits(),
        "objects": draw_objects(),
        "life-cycle": draw(("value", "meaning"), [(int(one), words) for one, words in LIFE_CYCLE.items()]),
        "provenance": draw(("value", "meaning"), [(int(one), words) for one, words in PROVENANCE.items()]),
    }


_TABLE: Final = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(\n?<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """The document with every table as the code has it. KeyError for a marker of no table."""
    tables = draw_all()
    return _TABLE.sub(lambda found: f"{found[1]}{tables[found[2]]}\n<!-- end -->", text)


def main() -> int:
    """Write, or with --check only compare."""
    text = DOCUMENT.read_text()
    made = fill(text)
    if "--check" in sys.argv[1:]:
        return 0 if made == text else 1
    DOCUMENT.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
