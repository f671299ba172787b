"""ports.Soc of an i.MX: every fact from each source that has it, and no fact the sources disagree about."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.ports import LifeCycle, Provenance, SocFacts
from mpagent.hal.soc.fuses import Fuses, Ocotp, OcotpFuses, find_nvmem, refuse_locked
from mpagent.hal.soc.identity import Identity, read_identity
from mpagent.hal.soc.lifecycle import Witness
from mpagent.hal.soc.parts import CLOSED_BIT, CLOSED_WORD, FIELD_RETURN_WORD, Layout, Span

Value = TypeVar("Value")

_SERIAL_NAME: Final = "soc0/serial_number"


class Report(NamedTuple):
    """Facts for the evidence, and what a person should know about the ones that are absent."""

    identity: Identity
    facts: SocFacts
    sources: tuple[Provenance, ...]
    """Who gave fuse words."""
    notes: tuple[str, ...]


class ImxSoc:
    """Reads; never opens anything for writing."""

    def __init__(self, root: Path, identity: Identity, ocotp: Ocotp | None, witnesses: Sequence[Witness]) -> None:
        self._root = root
        self._identity = identity
        self._ocotp = ocotp
        self._witnesses = witnesses

    def read_facts(self) -> SocFacts:
        """See ports.Soc."""
        return self.read_report().facts

    def read_report(self) -> Report:
        """The same, with its sources. Raises HardwareGone naming the fact that cannot be had or believed."""
        return _Reading(self._root, self._identity, self._ocotp, self._witnesses).report()


class _Answer(NamedTuple):
    source: str
    provenance: Provenance
    value: bytes


class _Reading:
    """One pass over all sources."""

    def __init__(self, root: Path, identity: Identity, ocotp: Ocotp | None, witnesses: Sequence[Witness]) -> None:
        self._root = root
        self._identity = identity
        self._layout: Layout = identity.layout
        self._ocotp = ocotp if self._layout.ocotp_pta else None
        self._witnesses = witnesses
        self._notes = [identity.note] if identity.note else []
        self._closed_by = ""

    def report(self) -> Report:
        uid, srk_hash, life_cycle = self._read_uid(), self._read_srk_hash(), self._read_life_cycle()
        claims = {"uid": uid, "srk_hash": srk_hash, "life_cycle": life_cycle}
        facts = SocFacts(
            family=self._layout.family,
            uid=uid[0] if uid else None,
            life_cycle=life_cycle[0] if life_cycle else None,
            srk_hash=srk_hash[0] if srk_hash else None,
            provenance={name: claim[1] for name, claim in claims.items() if claim is not None},
            closed_by=self._closed_by,
        )
        return Report(self._identity, facts, tuple(one.provenance for one in self._sources), tuple(self._notes))

    @cached_property
    def _sources(self) -> Sequence[Fuses]:
        """Whoever gives fuse words. On a HAB part somebody must: without fuses there is no life cycle."""
        found: list[Fuses] = []
        trouble: HardwareGone | None = None
        try:
            nvmem = find_nvmem(self._root, self._layout)
            nvmem.read(self._layout.srk_hash)
            found.append(nvmem)
        except HardwareGone as error:
            trouble = error
        if self._ocotp is not None:
            try:
                found.append(OcotpFuses(self._ocotp, self._spans()))
            except HardwareAbsent as absent:
                self._notes.append(str(absent))
        self._judge(trouble, found)
        return found

    def _spans(self) -> list[Span]:
        named = (self._layout.uid, self._layout.uid_upper, self._layout.srk_hash, CLOSED_WORD, FIELD_RETURN_WORD)
        return [span for span in named if span is not None]

    def _judge(self, trouble: HardwareGone | None, found: Sequence[Fuses]) -> None:
        """The other source may stand in for a file that is missing or closed to us, never for a damaged one."""
        if trouble is None:
            return
        missing = isinstance(trouble, HardwareAbsent)
        closed_to_us = isinstance(trouble.__cause__, PermissionError)
        if not (missing or closed_to_us) or (closed_to_us and not found):
            raise trouble
        if self._layout.hab and not found:
            raise HardwareGone(str(trouble), advice=trouble.advice) from trouble
        self._notes.append(str(trouble))

    def _read_uid(self) -> tuple[bytes, Provenance] | None:
        answers = []
        if self._identity.serial:
            digits = self._identity.serial[-self._layout.uid_bytes * 2 :]
            answers.append(_Answer(_SERIAL_NAME, Provenance.KERNEL, bytes.fromhex(digits)))
        if self._layout.uid is not None:
            answers += [self._read_uid_of(source, self._layout.uid) for source in self._sources]
        if not answers:
            return None
        value, provenance = _agree("the UID", answers)
        if value in (bytes(len(value)), b"\xff" * len(value)):
            raise HardwareGone(
                f"the UID reads {value.hex()} from {answers[0].source}: no chip has such a name",
                advice="the fuse clock or its driver does not work, or the part was never programmed",
            )
        self._compare_upper_halves()
        return value, provenance

    def _read_uid_of(self, source: Fuses, span: Span) -> _Answer:
        return _Answer(source.name, source.provenance, self._read_words(source, span, "the UID")[::-1])

    def _compare_upper_halves(self) -> None:
        """8MP: a kernel that prints 32 digits prints the other half in front. It is no part of the name."""
        if self._layout.uid_upper is None or len(self._identity.serial) != 32:
            return
        printed = _Answer(_SERIAL_NAME, Provenance.KERNEL, bytes.fromhex(self._identity.serial[:16]))
        what, upper = "the UID's upper half", self._layout.uid_upper
        fused = [_Answer(one.name, one.provenance, self._read_words(one, upper, what)[::-1]) for one in self._sources]
        _agree(what, [printed, *fused])

    def _read_srk_hash(self) -> tuple[bytes, Provenance] | None:
        """As fused: 32 bytes of SHA-256, or 64 of SHA-512 on an 8Q; a shorter form of those would be our invention."""
        claim = self._read_fuses(self._layout.srk_hash, "the SRK hash")
        if claim is None or any(claim[0]):
            return claim
        if self._layout.hab and self._fuse_says_closed()[0]:
            raise HardwareGone("the SRK hash reads all zero on a part whose closed fuse is blown")
        self._notes.append(
            "SRK hash: no SRK is fused" if self._layout.hab else "SRK hash: reads all zero, so the kernel hides it"
        )
        return None

    def _read_life_cycle(self) -> tuple[LifeCycle, Provenance] | None:
        if not self._layout.hab:
            return self._ask_witness("life cycle: no fuse of this part tells Linux")
        returned = self._read_fuses(FIELD_RETURN_WORD, "the field-return word")
        closed, provenance = self._fuse_says_closed()
        if returned is not None and any(returned[0]):
            return LifeCycle.FIELD_RETURN, returned[1]
        if not closed:
            return LifeCycle.OPEN, provenance
        live = self._ask_witness("life cycle: the fuse says closed, and nothing shows that this boot is")
        if live is None or live[0] is LifeCycle.OPEN:
            return LifeCycle.CLOSED_PENDING_REBOOT, provenance
        return live[0], max(live[1], provenance)

    def _ask_witness(self, silent: str) -> tuple[LifeCycle, Provenance] | None:
        """What the first witness says that can say anything."""
        for witness in self._witnesses:
            known = witness.read_life_cycle()
            if known is not None:
                self._closed_by = witness.name if known is LifeCycle.CLOSED else ""
                return known, witness.provenance
        self._notes.append(silent)
        return None

    def _fuse_says_closed(self) -> tuple[bool, Provenance]:
        what = "the closed bit"
        bits = [
            _Answer(one.name, one.provenance, _mask_closed(self._read_words(one, CLOSED_WORD, what)))
            for one in self._sources
        ]
        value, provenance = _agree(what, bits)
        return any(value), provenance

    def _read_fuses(self, span: Span, what: str) -> tuple[bytes, Provenance] | None:
        answers = [_Answer(one.name, one.provenance, self._read_words(one, span, what)) for one in self._sources]
        return _agree(what, answers) if answers else None

    def _read_words(self, source: Fuses, span: Span, what: str) -> bytes:
        return refuse_locked(what, source.read(span), source.name)


def _mask_closed(word: bytes) -> bytes:
    """The closed bit alone: other bits of the word are locks, which one source may see later than the other."""
    return (int.from_bytes(word, "little") & CLOSED_BIT).to_bytes(4, "little")


def _agree(what: str, answers: Sequence[_Answer]) -> tuple[bytes, Provenance]:
    """The one value, by its best witness. Raises HardwareGone naming who says what."""
    first = answers[0]
    for other in answers[1:]:
        if other.value != first.value:
            raise HardwareGone(
                f"{what} is {first.value.hex()} by {first.source} and {other.value.hex()} by {other.source}",
                advice="keep this board apart: one of the two does not tell the truth",
            )
    return first.value, min(one.provenance for one in answers)


def open_imx(root: Path, ocotp: Ocotp | None = None, *witnesses: Witness) -> ImxSoc:
    """The part below `root`, "/" on a device; `ocotp` and `witnesses` stay the caller's to close.

    Without a witness a blown closed fuse is CLOSED_PENDING_REBOOT for good. Raises HardwareAbsent away from an i.MX,
    HardwareGone for a part this agent has no table of.
    """
    return ImxSoc(root, read_identity(root), ocotp, witnesses)
