"""Byte strings at which a closer look begins. Each is a literal, so that one automaton finds all of them in one pass.

What stands at such a place is judged by `verdicts`; a mark alone is never a finding.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

import re2

from mpserver.scan.filters import Sought
from mpserver.scan.optee import NAME, UUID

AUTOMATON_MAX_BYTES: Final = 16 * 1024 * 1024
"""Memory RE2 may take for its states; what we look for needs some hundred."""


class Mark(NamedTuple):
    """One literal, or the same bytes in hexadecimal with anything usual between them."""

    family: str
    """Whose verdict is asked."""
    form: str
    literal: bytes
    sought: int = -1
    """Of the family key: which of the keys sought."""
    is_spelled: bool = False
    """Found as digits."""


GAP: Final = rb"[^0-9A-Za-z]{0,6}(?:0[xX]|\\x)?"
"""Between the bytes of a key in text: nothing, blanks, commas, colons, the prefixes of C."""
GAP_MAX_BYTES: Final = 8
UBOOT_SAYS: Final = (
    b"Generating Manufacturing Protection Public Key",
    b"Signing message with Manufacturing Protection Private Key",
    b"Signing message with SECO MP signature function",
    b"SECO get MP key failed",
)
"""Texts of the command, in the program and in what it printed (arch/arm/mach-imx/cmd_mfgprot.c, upstream and NXP's)."""
UBOOT_HELP: Final = b"Print the public key for Manufacturing Protection"
UBOOT_NAMES: Final = (b"\x00mfgprot\x00", b"\x00export_key_blob\x00", b"\x00get-mppubk\x00")
"""Names of commands as the program has them, between zeros (cmd_prov_key.c, fb_fsl.h)."""
DIGEST_LABEL: Final = b"Message Representative Digest(SHA-256):"
OPTEE_NAMES: Final = (NAME, b"manufact_protec.pta\x00", b"manuf_protec.pta\x00")
"""Names of the MP pseudo-TA, newest first (optee_os core/pta/imx/manufacturing_protection.c and NXP's earlier ones)."""
MP_SIGN_TA: Final = bytes.fromhex("00f2aa8a5024e411abe20002a5d5c51c")
"""UUID 8aaaf200-2450-11e4-abe2-0002a5d5c51c as memory has it: NXP's test TA mp_sign, and what calls it."""

FIXED: Final = (
    *(Mark("uboot", "said", one) for one in UBOOT_SAYS),
    Mark("uboot", "help", UBOOT_HELP),
    *(Mark("uboot", "name", one) for one in UBOOT_NAMES),
    Mark("log", "digest", DIGEST_LABEL),
    *(Mark("log", "half", one) for one in (b"\nd:\n", b"\nd:\r\n")),
    Mark("evidence", "MP-ES256", b"\x01\x3a\x00\x01\x11\x70"),
    *(Mark("optee", one.rstrip(b"\0").decode(), one) for one in OPTEE_NAMES),
    Mark("optee", "mp_sign", MP_SIGN_TA),
    Mark("optee", "caller", UUID),
    Mark("pem", "PEM", b"PRIVATE KEY-----"),
    Mark("der", "SEC1", b"\x02\x01\x01\x04\x20"),
    Mark("der", "SEC1", b"\x02\x01\x01\x04\x30"),
    Mark("der", "SEC1", b"\x02\x01\x01\x04\x42"),
    *(
        Mark("der", "PKCS#1", b"\x02\x01\x00\x02\x82" + one)
        for one in (b"\x01\x01\x00", b"\x01\x81\x00", b"\x02\x01\x00")
    ),
    Mark("der", "PKCS#8", bytes.fromhex("302e020100300506032b657004220420")),
    Mark("der", "PKCS#8", bytes.fromhex("302e020100300506032b656e04220420")),
    Mark("cose", "COSE_Key", b"\x20\x01\x21\x58\x20"),
    Mark("jwk", "JWK", b'"kty"'),
    Mark("lab", "ledger", b"CREATE TABLE attester_keys"),
    Mark("anchors", "realm", b'realm = "lab"'),
    Mark("anchors", "chip", b"sim_chip = "),
)
"""Found whatever the product. Source of -70001 and the labels: docs/wire.md section 8."""

MAGICS: Final = {
    "gz": b"\x1f\x8b\x08",
    "xz": b"\xfd7zXZ\x00",
    "zst": b"\x28\xb5\x2f\xfd",
    "bz2": b"BZh91AY&SY",
    "lz4": b"\x04\x22\x4d\x18",
    "lz4-old": b"\x02\x21\x4c\x18",
    "fdt": b"\xd0\x0d\xfe\xed",
    "cpio": b"070701",
    "squashfs": b"hsqs",
}
"""Containers that lie within other files and between them: a kernel with its initramfs, a FIT behind a boot loader."""


def mark_key(sought: Sequence[Sought]) -> Iterator[Mark]:
    """Every form in which a key is recognised by its first bytes."""
    for number, one in enumerate(sought):
        for form, literal in spell_prefix(one.prefix):
            yield Mark("key", form, literal, number)
        yield Mark("key", "hex", one.prefix[:4], number, True)
        yield Mark("key", "hex-turned", one.prefix[3::-1], number, True)


def spell_prefix(prefix: bytes) -> Iterator[tuple[str, bytes]]:
    """Form and literal. "words" has each 32-bit word turned round, "little" the whole coordinate.

    "dump-N" begins the second line of a memory dump whose first one ends after N bytes of the key.
    """
    yield "raw", prefix
    yield "words", prefix[3::-1]
    yield "little", prefix[::-1]
    for lead, (start, end) in enumerate(((0, 6), (2, 8), (3, 9))):
        text = b64encode(bytes(lead) + prefix + bytes(3))[start:end]
        yield f"base64-{lead}", text
        yield f"base64-{lead}", text.replace(b"+", b"-").replace(b"/", b"_")
    for done, head, case in product((1, 2, 3), (": ", "  "), (str.lower, str.upper)):
        yield f"dump-{done}", (head + case(prefix[done:].hex(" "))).encode()
    for case in (str.lower, str.upper):
        yield "dump-2", f": {case(prefix[2:4].hex())} {case(prefix[4:].hex())}".encode()


def mark_magics() -> Iterator[Mark]:
    """Starts of containers."""
    for form, literal in MAGICS.items():
        yield Mark("magic", form, literal)


class Automaton:
    """Finds every mark, overlapping ones too."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._literals: dict[bytes, list[Mark]] = {}
        self._spelled: dict[bytes, list[Mark]] = {}
        for one in marks:
            (self._spelled if one.is_spelled else self._literals).setdefault(one.literal, []).append(one)
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = AUTOMATON_MAX_BYTES
        # One literal may begin another: the longest first, the shorter ones are looked up by hand.
        literals = sorted(self._literals, key=len, reverse=True)
        self._pattern = re2.compile(b"|".join([*map(_escape, literals), *map(_spell, self._spelled)]), options)
        self._inner = {one: [other for other in literals if one.startswith(other)] for one in literals}
        longest = [len(one) for one in literals] + [2 * len(one) + GAP_MAX_BYTES * len(one) for one in self._spelled]
        self.overlap = max(longest) - 1

    @property
    def pattern(self) -> bytes:
        """All of it as one regular expression over bytes."""
        return bytes(self._pattern.pattern)

    def without(self, family: str) -> "Automaton":
        """The same, blind for one family."""
        marks = (one for kinds in (self._literals, self._spelled) for some in kinds.values() for one in some)
        return Automaton(one for one in marks if one.family != family)

    def find(self, window: bytes) -> Iterator[tuple[int, int, Mark]]:
        """Place, length and mark, by rising place."""
        at = 0
        while (hit := self._pattern.search(window, at)) is not None:
            at, text = hit.start(), hit.group()
            if text in self._inner:
                for literal in self._inner[text]:
                    for mark in self._literals[literal]:
                        yield at, len(literal), mark
            else:
                digits = _NOT_DIGITS.sub(b"", text).lower()
                for literal, marks in self._spelled.items():
                    if digits == literal.hex().encode():
                        for mark in marks:
                            yield at, len(text), mark
            at += 1


@lru_cache(maxsize=4)
def make_automaton(sought: tuple[Sought, ...]) -> Automaton:
    """Everything that is looked for, and these keys."""
    return Automaton([*FIXED, *mark_key(sought), *mark_magics()])


_NOT_DIGITS: Final = re.compile(rb"0[xX](?=[0-9A-Fa-f]{2})|[^0-9A-Fa-f]")


def _escape(literal: bytes) -> bytes:
    return b"".join(b"\\x%02x" % octet for octet in literal)


def _spell(literal: bytes) -> bytes:
    return b"(?i:" + GAP.join(b"%02x" % octet for octet in literal) + b")"
