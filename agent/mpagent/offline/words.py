"""What each check of docs/wire.md 11.4 means to whoever stands before the board: its consequence, words, next step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from mpagent.errors import BundleBroke, BundleRefused
from mpwire.errors import Malformed, Unauthentic

_ANOTHER: Final = "use the bundle that was made for this board and image"
_NEW_COPY: Final = "copy the bundle again, from the OEM's own file"
_ASK: Final = "ask the OEM, and name this check"


class Word(NamedTuple):
    """One check."""

    refused: bool
    """The bundle may be whole, and a person has to act (77); otherwise it is broken or nobody's (76)."""
    text: str
    advice: str


WORDS: Final[Mapping[str, Word]] = {
    "bundle-frame": Word(False, "this is no bundle, or it is cut off", _NEW_COPY),
    "bundle-manifest": Word(False, "the manifest is not one this version of mpagent can take", _ASK),
    "trust-update": Word(False, "the trust update in the bundle does not hold", _ASK),
    "bundle-signer": Word(False, "the bundle is signed by nobody whose word counts here", _ASK),
    "bundle-signature": Word(False, "the manifest was changed after it was signed", _NEW_COPY),
    "bundle-time": Word(False, "the bundle speaks of a time outside the life of its signer's key", _ASK),
    "bundle-authority-key": Word(
        True, "this board holds no key of the update authority that signed the bundle", "apply the first loading first"
    ),
    "bundle-realm": Word(True, "the bundle is of another realm than this image", _ANOTHER),
    "bundle-product": Word(True, "the bundle is for another product than this image", _ANOTHER),
    "bundle-expired": Word(True, "the bundle has expired", "ask the OEM for a newer bundle"),
    "bundle-family": Word(True, "the bundle is for another SoC family than this board's", _ANOTHER),
    "bundle-srk": Word(True, "the bundle is for boards with other SRK fuses", _ANOTHER),
    "bundle-life-cycle": Word(
        True, "the bundle is for closed parts, and this one is not closed", "close the part and reboot"
    ),
    "bundle-uid": Word(True, "the bundle lists its boards, and this one is not among them", _ANOTHER),
    "bundle-old": Word(True, "the bundle is older than what this board or image takes", "use the newest bundle"),
    "bundle-slots": Word(True, "the bundle does not hold the slots that this image asks for", _ASK),
    "bundle-slot-version": Word(
        True, "a value in the bundle is older than the one this board holds", "use the newest bundle"
    ),
    "bundle-authority": Word(True, "the bundle writes what its authority has no right to", _ASK),
    "bundle-payload": Word(False, "the bundle is torn, or was changed on its way", _NEW_COPY),
    "bundle-secret": Word(True, "the bundle needs a job secret that is not here", "give the job secret of this job"),
    "bundle-key": Word(
        True,
        "the bundle does not open here: it is under another class key or update key, or this part has booted open",
        "compare part type and SRK fuses with the bundle's; if the part was just closed, reboot it",
    ),
    "bundle-open": Word(False, "a component does not open, although nothing of it was changed", _ASK),
    "bundle-value": Word(False, "an update key or a policy in the bundle has not its shape", _ASK),
}
"""By the name of the check, in the order of the document. Checks of an issuer's chain stand under `bundle-signer`."""


def refuse(check: str, detail: str = "") -> BundleBroke:
    """The error to raise for a check; `detail` says what was compared, and may be shown."""
    word = WORDS[check]
    kind = BundleRefused if word.refused else BundleBroke
    return kind(check, f"{word.text}: {detail}" if detail else word.text, advice=word.advice)


@contextmanager
def told(otherwise: str) -> Iterator[None]:
    """What mpwire finds, in these words; what is no check of a bundle counts as `otherwise`."""
    try:
        yield
    except (Malformed, Unauthentic) as error:
        name, _, rest = str(error).partition(":")
        check = next((one for one in (name, name.rpartition("-")[0]) if one in WORDS), otherwise)
        raise refuse(check, rest.strip() if check == name else str(error)) from error
