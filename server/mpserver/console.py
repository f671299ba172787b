"""Reads what `mfgprot` printed on a U-Boot console, as people paste it (docs/hardware.md).

Two variants: CAAM (i.MX 7, 6UL, 8M: P-256, with a digest) and SECO (i.MX 8QM, 8QXP: P-384, without). Colours, carriage
returns, prompts, log prefixes and wrapped lines are put up with; a digit that is missing or is none never is.
Source: U-Boot arch/arm/mach-imx/cmd_mfgprot.c and drivers/crypto/fsl/fsl_mfgprot.c, upstream and NXP's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mpserver.errors import LogWrong

LOG_MAX_BYTES: Final = 4 * 1024 * 1024
"""A day of a chatty board; what `mfgprot` prints takes a few hundred bytes."""
KEY_DIGITS: Final = {128: "P-256", 192: "P-384"}
HALF_DIGITS: Final = {64: "P-256", 96: "P-384"}
STRAY_MIN_DIGITS: Final = 24
"""From here on a line that is nearly all digits was meant to be digits alone."""
FAILURE_REACH_LINES: Final = 12
"""How far below a word about manufacturing protection a failure text still belongs to it."""

_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABOUT: Final = re.compile(r"mfgprot|Manufacturing Protection|SECO MP|SECO get MP")
_LABEL: Final = re.compile(
    r"^(?P<prefix>(?:.{0,119}[\s\]>)|:])?)"
    r"(?P<label>Public key|Message Representative Digest\(SHA-256\)|Message|Signature|[Ccd]):[ \t]*(?P<rest>.*)$"
)
_OPEN: Final = re.compile(r"HAB Configuration: 0xf0\b", re.IGNORECASE)
"""What `hab_status` prints on a part that is not closed."""
_PAIRS: Final = re.compile(r"(?:[0-9A-F]{2} ?)+")
"""A message as mfgprot prints it."""
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")

FAILURES: Final = (
    (
        "exit not allowed from main input shell.",
        "mfgprot ended with -2: the CAAM has no private key. On a closed part the CSF of the first image lacks"
        " [Unlock] Engine=CAAM Features=MFG; on an i.MX8M/8MM of an affected batch the fuses are wrong:"
        " `md.l 0x309003f8 1` prints 00000000 on a good part",
    ),
    (
        "SEC Dequeue timed out",
        "the CAAM's job never ended: the private key was cleared at boot (CSF without [Unlock] Engine=CAAM"
        " Features=MFG), or the job ring belongs to OP-TEE",
    ),
    (
        "Error in public key generation",
        "the CAAM refused to make the public key: the part is open, the CSF lacks [Unlock] Engine=CAAM Features=MFG,"
        " or its fuses are wrong",
    ),
    ("SECO get MP key failed", "the SECO gave no key: the part is not closed, or its firmware has no MP"),
    ("SECO get MP signature failed", "the SECO did not sign: the part is not closed, or its firmware has no MP"),
    (
        "Unknown command 'mfgprot'",
        "this U-Boot was built without it: CONFIG_FSL_MFGPROT (upstream), CONFIG_IMX_CAAM_MFG_PROT or"
        " CONFIG_IMX_SECO_MFG_PROT (NXP)",
    ),
)
"""What the boot loader prints instead of an answer, and why."""


@dataclass(frozen=True, slots=True)
class Signed:
    """One `mfgprot sign`."""

    line: int
    curve: str
    message: bytes
    digest: bytes | None
    """None: SECO prints none."""
    signature: bytes
    """c || d, which are r || s."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A text of the boot loader that says no."""

    line: int
    text: str
    cause: str


@dataclass(slots=True)
class Console:
    """What one log says, nothing of it verified."""

    keys: list[bytes] = field(default_factory=list)
    """X || Y, each key once: 64 bytes or 96."""
    key_line: int = 0
    signed: list[Signed] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    redacted: bool = False
    """A public key was printed, and somebody took its digits out."""
    is_open: bool = False
    """The log says elsewhere that the part is not closed: its MP key is no class key."""


def read_console(raw: bytes) -> Console:
    """Raises LogWrong naming the line, and for a file that holds nothing of `mfgprot`."""
    if len(raw) > LOG_MAX_BYTES:
        raise LogWrong(f"the log is longer than {LOG_MAX_BYTES} bytes; cut out the part around mfgprot")
    lines = clean(raw)
    walk = _Walk(lines)
    for at, line in enumerate(lines):
        walk.look(at, line)
    walk.finish()
    if not (walk.found.keys or walk.found.signed or walk.found.failures or walk.found.redacted):
        raise LogWrong("the log holds no output of `mfgprot pubk` or `mfgprot sign`")
    return walk.found


def clean(raw: bytes) -> list[str]:
    """Lines without colours and control characters. UTF-16 is what a shell of Windows writes.

    Its mark alone says nothing: a line that is powered up makes the same two bytes.
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") and raw.count(0) * 4 >= len(raw):
        text = raw.decode("utf-16", errors="replace")
    else:
        text = raw.decode("utf-8-sig", errors="replace")
    text = re.sub(r"\r+\n?", "\n", _ESCAPES.sub("", text))
    return [_CONTROLS.sub("", line).rstrip() for line in text.split("\n")]


class _Walk:
    """One pass over the lines. A `sign` is put together from five labels, each of which must follow the last."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._about = -FAILURE_REACH_LINES - 1
        self._taken = -1
        """Last line whose digits were read."""
        self._begun: dict[str, tuple[int, str]] = {}
        """Of the `sign` being read: line and digits by label."""
        self.found = Console()

    def look(self, at: int, line: str) -> None:
        """One line; `at` counts from 0."""
        if at <= self._taken:
            return
        if _ABOUT.search(line):
            self._about = at
        self.found.is_open |= bool(_OPEN.search(line))
        self._look_for_failure(at, line)
        if "Signing message with" in line and _ABOUT.search(line):
            self.finish()
            self._begun["Signing"] = (at, "")
        label = _LABEL.match(line)
        if label is not None:
            self._take(at, label)

    def finish(self) -> None:
        """The end of a `sign`. Raises LogWrong where it was cut off, unless the boot loader said why."""
        begun, self._begun = self._begun, {}
        if not begun or (set(begun) == {"Signing"} and self.found.failures):
            return
        at = min(line for line, _ in begun.values())
        missing = [label for label in ("Message", "c", "d") if label not in begun]
        if missing:
            raise LogWrong(f"line {at + 1}: this signature is cut off: {missing[0]} is missing")
        (_, message), (_, c), (line, d) = begun["Message"], begun["c"], begun["d"]
        if len(c) != len(d):
            raise LogWrong(f"line {line + 1}: c has {len(c)} digits and d has {len(d)}")
        digest = begun.get("Digest")
        if HALF_DIGITS[len(c)] == "P-256" and digest is None:
            raise LogWrong(f"line {at + 1}: this signature is cut off: the digest is missing")
        signature = bytes.fromhex(c + d)
        if not any(signature[: len(c) // 2]) or not any(signature[len(c) // 2 :]):
            raise LogWrong(f"line {line + 1}: the signature is zero: a call that failed")
        self.found.signed.append(
            Signed(
                line=at + 1,
                curve=HALF_DIGITS[len(c)],
                message=bytes.fromhex(message),
                digest=None if digest is None else bytes.fromhex(digest[1]),
                signature=signature,
            )
        )

    def _look_for_failure(self, at: int, line: str) -> None:
        for text, cause in FAILURES:
            if text in line and at - self._about <= FAILURE_REACH_LINES:
                self.found.failures.append(Failure(at + 1, text, cause))

    def _take(self, at: int, label: re.Match[str]) -> None:
        name, rest = label["label"], label["rest"]
        if name == "Public key":
            self._take_key(at, label)
        elif name == "Message" and (self._begun or _PAIRS.fullmatch(rest)):
            if "Message" in self._begun:
                self.finish()
            digits = self._read_digits(at, label)
            if not digits or len(digits) % 2:
                raise LogWrong(f"line {at + 1}: the message has {len(digits)} digits, which is no number of bytes")
            self._begun["Message"] = (at, digits)
        elif self._begun and name.startswith("Message R"):
            self._begun["Digest"] = (at, self._read_exactly(at, label, {64: ""}))
        elif self._begun and name in ("C", "c", "d"):
            self._begun[name.lower()] = (at, self._read_exactly(at, label, HALF_DIGITS))
            if name == "d":
                self.finish()

    def _take_key(self, at: int, label: re.Match[str]) -> None:
        digits = self._read_digits(at, label)
        if not digits:
            self.found.redacted |= at - self._about <= FAILURE_REACH_LINES
            return
        if len(digits) not in KEY_DIGITS:
            raise LogWrong(f"line {at + 1}: the public key has {len(digits)} digits; whole it has 128 or 192 (SECO)")
        key = bytes.fromhex(digits)
        self._about = at
        self.found.key_line = at + 1
        if key not in self.found.keys:
            self.found.keys.append(key)

    def _read_exactly(self, at: int, label: re.Match[str], sizes: dict[int, str]) -> str:
        digits = self._read_digits(at, label)
        if len(digits) not in sizes:
            right = " or ".join(map(str, sizes))
            raise LogWrong(f"line {at + 1}: {label['label']} has {len(digits)} digits; whole it has {right}")
        return digits

    def _read_digits(self, at: int, label: re.Match[str]) -> str:
        """All that follows the label, over as many lines as hold nothing else. Remembers where it ended."""
        found = label["rest"] if _is_hex(label["rest"]) else ""
        if label["rest"].strip() and not found:
            return ""
        prefix = _write_prefix(label["prefix"])
        for place, line in self._below(at):
            rest = prefix.sub("", line, count=1).strip()
            if rest and not _is_hex(rest):
                _check_no_stray(place, rest)
                break
            found += rest
            self._taken = place if rest else self._taken
        return re.sub(r"\s", "", found)

    def _below(self, at: int) -> Iterator[tuple[int, str]]:
        for place in range(at + 1, len(self._lines)):
            yield place, self._lines[place]


def _check_no_stray(place: int, rest: str) -> None:
    """Raises LogWrong for a line of digits with something else in it: serial noise, not the end of the digits."""
    strays = [one for one in rest if one not in "0123456789ABCDEFabcdef "]
    if len(rest) >= STRAY_MIN_DIGITS and len(strays) * 8 <= len(rest):
        raise LogWrong(f"line {place + 1}: {strays[0]!r} stands among the digits")


def _is_hex(text: str) -> bool:
    return all(_HEX.fullmatch(part) for part in text.split())


def _write_prefix(prefix: str) -> re.Pattern[str]:
    """What stands before a label (a time, a port's name) stands before the lines below it, with other numbers."""
    parts = re.split(r"([0-9A-Fa-f]*[0-9][0-9A-Fa-f]*|\s+)", prefix)
    pattern = "".join(
        r"\s+" if part.isspace() else "[0-9A-Fa-f]+" if _HEX.fullmatch(part) else re.escape(part)
        for part in parts
        if part
    )
    return re.compile("^" + pattern)
