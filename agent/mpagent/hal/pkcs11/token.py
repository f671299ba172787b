"""One PKCS#11 token with one logged-in session: every call goes through here, so that each refusal has a meaning.

python-pkcs11 is imported here and nowhere else, when a token is opened; 0.7 and 0.10 are both served.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareGone
from mpagent.hal.pkcs11 import credential, faults
from mpwire.errors import MpError

Answer = TypeVar("Answer")
Meaning = Callable[[RuntimeError], MpError | None]
"""What a refusal means to this caller; None leaves it to faults.explain."""

_OPTEE: Final = ("Linaro", "OP-TEE TA")
"""Manufacturer and model that OP-TEE's PKCS#11 TA gives (optee_os ta/pkcs11/src/pkcs11_token.h)."""


def _no_meaning(_refused: RuntimeError) -> MpError | None:
    return None


class Token:
    """A token we are logged in to. Its serial number is no name: OP-TEE's TA long gave every board sixteen zeros."""

    def __init__(self, p11: Any, info: Any, session: Any) -> None:
        self.p11: Final = p11
        self.label: Final[str] = info.label
        self._info = info
        self._session = session
        self._closed = False

    @property
    def is_optee(self) -> bool:
        """Whether this is OP-TEE's PKCS#11 TA, by what the token says of itself."""
        return (self._info.manufacturer_id, self._info.model) == _OPTEE

    @cached_property
    def mechanisms(self) -> frozenset[Any]:
        """What the token offers now; a mechanism python-pkcs11 has no name for is a plain number."""
        return frozenset(self.run("listing mechanisms", lambda _session: self._info.slot.get_mechanisms()))

    def lacks(self, *names: str) -> tuple[str, ...]:
        """Those of these mechanisms (without CKM_) that the token does not offer."""
        return tuple(name for name in names if getattr(self.p11.Mechanism, name) not in self.mechanisms)

    def run(self, doing: str, verb: Callable[[Any], Answer], meaning: Meaning = _no_meaning) -> Answer:
        """Do `verb` on the session. Raises what `meaning` or else faults.explain makes of a refusal."""
        try:
            return verb(self._session)
        except RuntimeError as error:  # base of PKCS11Error; 0.7 raises it bare where it thinks a value impossible
            refused = error
        raise meaning(refused) or faults.explain(refused, doing)

    def find(self, doing: str, wanted: Mapping[Any, Any]) -> list[Any]:
        """Every object with these attributes."""
        return self.run(doing, lambda session: list(session.get_objects(dict(wanted))))

    def read(self, doing: str, item: Any, attribute: Any) -> Any:
        """One attribute; None where the token does not know it."""

        def verb(_session: Any) -> Any:
            try:
                return item[attribute]
            except self.p11.AttributeTypeInvalid:
                return None

        return self.run(doing, verb)

    def confirm(self) -> None:
        """Raises HardwareGone unless the same token is still in its slot.

        Asked before an absent object is taken for another token's: an emptied slot has no objects either.
        """
        now = self.run("looking at the token", lambda _session: self._info.slot.get_token())
        if (now.label, now.serial) != (self._info.label, self._info.serial):
            raise HardwareGone(
                f"the PKCS#11 token {self.label!r} was exchanged or emptied while it was in use",
                advice="put the right token back and start again",
            )

    def close(self) -> None:
        """Log out and end the session; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            self._session.close()
        except RuntimeError:
            # The token is gone, and the session with it. Raising here would hide the failure that brought us here.
            return


def open_token(module: Path, label: str, pin_file: Path, serial: bytes | None = None) -> Token:
    """Find the token, look at its tries, then log in; one session, one try.

    Raises HardwareAbsent: no such module on this board, or no token of this label. HardwareGone: the module fails, or
    the token is locked, without PIN or on its last try. ConfigWrong: two such tokens, or a wrong PIN.
    """
    p11 = _import_p11()
    info = _pick(_list_tokens(_load(p11, module)), label, serial)
    credential.check_tries(int(info.flags), label)
    return Token(p11, info, _log_in(p11, info, pin_file))


def _import_p11() -> Any:
    try:
        import pkcs11
    except ImportError as missing:
        raise ConfigWrong(
            "the PKCS#11 backend is not installed here: install mpagent with its extra `pkcs11`", detail=str(missing)
        ) from None
    return pkcs11


def _load(p11: Any, module: Path) -> Any:
    """The module, initialised. Asked of open(2) first, because dlopen tells absent and broken by its text alone."""
    try:
        with open(module, "rb"):
            pass
    except FileNotFoundError:
        raise HardwareAbsent(f"this image has no PKCS#11 module {module}") from None
    except OSError as error:
        raise HardwareGone(f"the PKCS#11 module {module} cannot be read: {error.strerror}") from None
    try:
        return p11.lib(str(module))
    except RuntimeError as refused:
        # libckteec says CKR_DEVICE_ERROR alike for no /dev/tee*, no permission, no supplicant and no TA
        # (optee_client libckteec/src/invoke_ta.c), so this is not called absent.
        raise HardwareGone(
            f"the PKCS#11 module {module} does not start",
            detail=f"{type(refused).__name__} {refused}",
            advice="check that it is a PKCS#11 module and that its device is there and open to this user "
            "(libckteec: /dev/tee0, tee-supplicant and the PKCS#11 TA)",
        ) from None


def _list_tokens(library: Any) -> list[Any]:
    """The initialised tokens in all slots."""
    try:
        return [token for token in map(_look, library.get_slots(token_present=True)) if token is not None]
    except RuntimeError as refused:
        raise faults.explain(refused, "listing tokens") from None


def _look(slot: Any) -> Any:
    try:
        token = slot.get_token()
    except RuntimeError as refused:
        if type(refused).__name__ in ("TokenNotPresent", "TokenNotRecognised"):
            return None  # pulled since the list was made, or of a make the module does not know
        raise
    return token if int(token.flags) & credential.INITIALIZED else None


def _pick(tokens: list[Any], label: str, serial: bytes | None) -> Any:
    found = [token for token in tokens if token.label == label and serial in (None, bytes(token.serial).strip())]
    wanted = f"labelled {label!r}" + (f" with serial number {serial!r}" if serial is not None else "")
    if not found:
        there = ", ".join(repr(token.label) for token in tokens) or "none"
        raise HardwareAbsent(
            f"no PKCS#11 token is {wanted}; initialised here: {there}",
            advice="initialise one under this label (C_InitToken), or name one that is there",
        )
    if len(found) > 1:
        raise ConfigWrong(f"{len(found)} PKCS#11 tokens are {wanted}: give them different labels, or name one serial")
    return found[0]


def _log_in(p11: Any, info: Any, pin_file: Path) -> Any:
    pin = credential.read_pin(pin_file)
    try:
        return info.open(rw=True, user_pin=pin.reveal().decode())
    except p11.UserAlreadyLoggedIn:
        # Login counts for the whole process (PKCS#11 section 5.6): another part of it came first.
        return info.open(rw=True)
    except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
        tries = credential.describe_tries(int(info.slot.get_token().flags))
        raise ConfigWrong(f"the PIN in {pin_file} is not that of the PKCS#11 token {info.label!r}; {tries}") from None
    except p11.PinLocked:
        raise HardwareGone(
            f"the user PIN of the PKCS#11 token {info.label!r} is locked", advice="its security officer sets a new one"
        ) from None
    except RuntimeError as refused:
        raise faults.explain(refused, "logging in") from None
