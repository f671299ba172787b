"""From a mark to a verdict: what stands there is parsed as far as it takes to be sure, or it is no finding."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mpserver.scan import optee, private, signatures
from mpserver.scan.candidates import AFTER_BYTES, BEFORE_BYTES, Spot, find_key
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Kind, Severity, Verdict
from mpserver.scan.marks import Mark
from mpserver.scan.regions import Region

_LOG_REACH_BYTES: Final = 160
_LOG_MIN_BYTES: Final = 16
_SHOWN: Final = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f%]")
"""What a console does not print, and what a program's own text has where numbers go."""


def judge(region: Region, at: int, length: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """Verdicts about a mark at `at`. Reads a few KiB around it."""
    if mark.family == "key":
        yield from _judge_key(region, at, length, mark, sought[mark.sought])
    else:
        yield from _JUDGES[mark.family](region, at, mark, sought)


def _judge_key(region: Region, at: int, length: int, mark: Mark, sought: Sought) -> Iterator[Verdict]:
    start = max(0, at - BEFORE_BYTES)
    text = region.read(start, at - start + length + AFTER_BYTES)
    words = find_key(Spot(text, at - start, length), mark.form, sought)
    if words is not None:
        yield Verdict(Kind.MP_KEY, words, Severity.LEAK, f"the MP public key of this product, {words}", at)


def _judge_uboot(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """A program has its texts between zeros; a console that printed them has more text behind."""
    behind = region.read(at + len(mark.literal), _LOG_REACH_BYTES).split(b"\0")[0]
    if mark.form == "said" and len(behind) >= _LOG_MIN_BYTES and not _SHOWN.search(behind):
        yield Verdict(Kind.MP_LOG, "U-Boot", Severity.REVIEW, "text that U-Boot's mfgprot printed", at)
        return
    name = mark.literal.strip(b"\0").decode()
    said = f'a boot loader that uses the MP key: "{name}"'
    yield Verdict(Kind.MP_SOFTWARE, "U-Boot", Severity.OPEN, said, at + (mark.literal[0] == 0))


def _judge_optee(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    if mark.form == "mp_sign":
        said = "NXP's test TA mp_sign, or a program that calls it: it signs with the MP key for anybody"
        yield Verdict(Kind.OPTEE, "mp_sign", Severity.OPEN, said, at)
    elif mark.form == "manuf_protec.pta":
        said = "an OP-TEE of 2019 whose MP pseudo-TA signs for Linux"
        yield Verdict(Kind.OPTEE, "pseudo-TA", Severity.OPEN, said, at)
    elif mark.form == "caller":
        if not optee.is_head(region.read(at, 80)):
            said = "a program or TA that asks for the MP pseudo-TA: a TA may do so for whoever asks it"
            yield Verdict(Kind.OPTEE, "caller", Severity.REVIEW, said, at)
    else:
        door = optee.judge_door(region, at)
        if door is optee.Door.OPEN:
            said = "an OP-TEE whose MP pseudo-TA signs for Linux: nobody is asked when a session is opened"
            yield Verdict(Kind.OPTEE, "pseudo-TA", Severity.OPEN, said, at)
        elif door is optee.Door.UNKNOWN:
            said = (
                "an OP-TEE with an MP pseudo-TA; this binary does not tell whether Linux may call it:"
                " hand over conf.mk of its build with --optee-conf"
            )
            yield Verdict(Kind.OPTEE, "pseudo-TA", Severity.REVIEW, said, at)


def _judge_lab(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    yield Verdict(Kind.LAB, mark.form, Severity.LEAK, "the ledger of an mpserver", at)


def _judge_anchors(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    start = max(0, at - 4096)
    text = region.read(start, 8192)
    if b"[board]" not in text and b"\nroots = " not in text:
        return
    said = {
        "realm": "anchors of a lab: this image believes lab keys",
        "chip": "anchors that name a simulated chip",
    }[mark.form]
    yield Verdict(Kind.LAB, "anchors", Severity.LEAK, said, at)


_JUDGES: Final[dict[str, Callable[[Region, int, Mark, Sequence[Sought]], Iterator[Verdict]]]] = {
    "uboot": _judge_uboot,
    "optee": _judge_optee,
    "anchors": _judge_anchors,
    "lab": _judge_lab,
    "log": signatures.judge_log,
    "evidence": signatures.judge_evidence,
    "pem": private.judge_pem,
    "der": private.judge_der,
    "cose": private.judge_cose,
    "jwk": private.judge_jwk,
}
