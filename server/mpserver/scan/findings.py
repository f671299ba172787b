"""What a scan says: one finding a place, with the path of containers that leads there. Never the bytes themselves."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from mpserver.scan.regions import Place

KEPT_MAX: Final = 5_000
"""Findings of one image that are told; more say nothing new."""


class Severity(StrEnum):
    """What follows for the image."""

    LEAK = "leak"
    """The secret, or what gives it away, is in the image: it must not ship, and copies that left are burnt."""
    OPEN = "open"
    """Software in the image gives the secret to whoever asks."""
    REVIEW = "review"
    """A person has to look: it cannot be told from the bytes."""
    UNSEEN = "unseen"
    """Nobody looked: what lies there is not known."""


class Kind(StrEnum):
    """Of what."""

    MP_KEY = "mp-public-key"
    MP_SIGNATURE = "mp-signature"
    MP_LOG = "mp-log"
    MP_SOFTWARE = "mp-software"
    OPTEE = "mp-optee"
    PRIVATE_KEY = "private-key"
    LAB = "lab-key"
    UNSEEN = "not-looked-into"


ADVICE: Final = {
    Kind.MP_KEY: "take it out, and find how it came in; if a copy of this image left the house, the key is burnt:"
    " bundles under it need another SRK set",
    Kind.MP_SIGNATURE: "whoever has it can compute the key: treat it as the key itself, and keep the part that signed"
    " away from bundles of mp_use secret",
    Kind.MP_LOG: "leave logs of mfgprot out of images",
    Kind.MP_SOFTWARE: "build U-Boot without CONFIG_FSL_MFGPROT, CONFIG_IMX_CAAM_MFG_PROT, CONFIG_IMX_SECO_MFG_PROT",
    Kind.OPTEE: "build OP-TEE without CFG_NXP_CAAM_MP_NO_ACCESS_CTRL, and leave NXP's mp_sign TA out",
    Kind.PRIVATE_KEY: "take it out: who reads one image has the key of all",
    Kind.LAB: "take it out: lab keys and simulations have no place on a device",
    Kind.UNSEEN: "unpack it and scan what comes out, or leave it out of the image",
}


@dataclass(slots=True)
class Finding:
    """`path` and `offset` are made better as the walk goes deeper; the rest stays."""

    kind: Kind
    form: str
    severity: Severity
    said: str
    path: str
    offset: int
    key: str = ""

    def as_value(self, image: str) -> dict[str, Any]:
        """What --json prints."""
        return {
            "image": image,
            "path": self.path,
            "offset": self.offset,
            "kind": self.kind.value,
            "form": self.form,
            "severity": self.severity.value,
            "said": self.said,
            "key": self.key or None,
            "advice": ADVICE[self.kind],
        }


class Verdict(NamedTuple):
    """What a closer look at a mark found."""

    kind: Kind
    form: str
    severity: Severity
    said: str
    offset: int
    """Of what was judged, in the region that was looked at."""
    key: str = ""
    """Of a private key: SHA-256 of the SubjectPublicKeyInfo of its public half, which is no secret."""


class Notebook:
    """The findings of one image, each place and kind once."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._known: dict[tuple[Place | None, Kind, str], Finding] = {}
        self.is_full = False

    def note(self, place: Place | None, finding: Finding) -> Finding:
        """The finding kept: one noted before at this place gets the newer path, which is deeper."""
        key = (place, finding.kind, finding.form)
        known = self._known.get(key) if place is not None else None
        if known is not None:
            known.path, known.offset = finding.path, finding.offset
            return known
        if len(self.findings) >= KEPT_MAX:
            self.is_full = True
            return finding
        self.findings.append(finding)
        if place is not None:
            self._known[key] = finding
        return finding

    def note_unseen(self, path: str, reason: str) -> None:
        """What was not looked into, and why."""
        said = f"not looked into: {reason}"
        self.note(None, Finding(Kind.UNSEEN, "", Severity.UNSEEN, said, path, 0))
