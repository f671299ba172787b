"""One logged-in pool of sessions: each call borrows one, a lost token is found again, and meanwhile says so.

A login counts for the whole process (PKCS#11 section 5.6), so the first session logs in and the others ride on it.
Nobody waits for ever: a pool in use says `token` (503) after BORROW_WAIT_S, and a token that is away is looked for at
most once in LOOK_AGAIN_S, whoever asks.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, TypeVar

from mpserver.errors import SetUp
from mpserver.token import settings as configured
from mpserver.token.faults import TokenAway, explain, is_full, is_gone, is_worth_another_try
from mpserver.token.module import Module, load_module
from mpserver.token.settings import TokenSettings
from mpwire.errors import MpError
from mpwire.secret import Secret

Answer = TypeVar("Answer")

SESSIONS_MAX: Final = 4
"""The server asks from two threads, the loop's and the writer's; small tokens have ten sessions for all programs."""
TRIES: Final = 3
"""An object that is looked up anew, then a login that is made anew."""
BORROW_WAIT_S: Final = 5.0
LOOK_AGAIN_S: Final = 1.0
"""Between two looks for a token that is away: a look starts the module anew, and a login costs a try of the PIN."""
_PIN_SET, _FINAL_TRY, _LOCKED = 0x8, 0x20000, 0x40000
"""CKF_USER_PIN_INITIALIZED, _FINAL_TRY, _LOCKED."""


Vouch = Callable[["Session", str], None]
"""Whether a key that was just found, by name, is the one we know. Raises StoreDamaged."""
Prove = Callable[["Session"], None]
"""Whether all keys we know are there: asked after every login, with its first session."""


def _believe(*_: object) -> None:
    return


class Session:
    """One open session and the objects found by it. One thread has it at a time."""

    def __init__(self, module: Module, token: Any, raw: Any, issuer: bytes, vouch: Vouch) -> None:
        self.p11: Final = module.p11
        self.generation: Final = module.generation
        self.token: Final = token
        self.raw: Final = raw
        self.issuer: Final = issuer
        self.vouch: Final = vouch
        self.is_proven = False
        """Whether the issuer's keys were seen by this login; then finding none of them means that the token is gone."""
        self.objects: dict[str, Any] = {}
        """Keys that were found and vouched for, by name."""

    def close(self) -> None:
        """A session of a token that is gone cannot be closed, and need not."""
        try:
            self.raw.close()
        except RuntimeError:
            return


class Pool:
    """Sessions on one token."""

    def __init__(self, settings: TokenSettings, prove: Prove = _believe, vouch: Vouch = _believe) -> None:
        self.settings: Final = settings
        self.wait_s = BORROW_WAIT_S
        self._prove, self._vouch = prove, vouch
        self._idle: list[Session] = []
        self._lent = 0
        self._token: Any = None
        self._was_here = False
        self._refused_pin: Secret | None = None
        self._last: MpError | None = None
        self._look_at = 0.0
        self._generation = 0

    @cached_property
    def module(self) -> Module:
        """Loaded when it is first asked for. Raises SetUp, TokenAway."""
        return load_module(self.settings.module)

    def look(self) -> Any:
        """What python-pkcs11 says of the token in its slot now: label, serial, flags, slot. Raises as `run`."""
        return self.run("looking at the token", lambda session: session.raw.token.slot.get_token())

    def run(self, doing: str, verb: Callable[[Session], Answer]) -> Answer:
        """Do `verb` on a session of its own; again with objects looked up anew or on a new login, where that may help.

        So a verb may run more than once: it must be one of which nobody can tell two from one. Raises TokenAway,
        TokenRefused, and what the token's owner must hear: SetUp, StoreDamaged.
        """
        tries = TRIES
        while True:
            tries -= 1
            try:
                return self._try(verb)
            except RuntimeError as refused:
                if not tries or not is_worth_another_try(refused):
                    raise explain(refused, doing) from None

    def close(self) -> None:
        """Idle sessions end; those that are lent end when they come back."""
        with self.module.turn:
            self._drop()

    def _try(self, verb: Callable[[Session], Answer]) -> Answer:
        session = self._borrow()
        is_lost = False
        try:
            return verb(session)
        except RuntimeError as refused:
            session.objects.clear()
            is_lost = is_gone(refused)
            raise
        finally:
            self._give_back(session, is_lost)

    def _borrow(self) -> Session:
        """An idle session, or a new one while there is room. Raises TokenAway when none comes back in time."""
        until = time.monotonic() + self.wait_s
        with self.module.turn:
            while True:
                self._connect(until)
                if not self._idle and self._lent < self._room():
                    self._idle += self._open()
                if self._idle:
                    self._lent += 1
                    self.module.lent += 1
                    return self._idle.pop()
                if not self.module.turn.wait(until - time.monotonic()):
                    raise TokenAway(f"all {self._lent} sessions with the token are in use: it is slow, or too many ask")

    def _give_back(self, session: Session, is_lost: bool) -> None:
        with self.module.turn:
            self._lent -= 1
            self.module.lent -= 1
            if session.token is not self._token:
                self._end(session)
            elif is_lost:
                self._end(session)
                self._drop()
            else:
                self._idle.append(session)
            self.module.turn.notify_all()

    def _drop(self) -> None:
        for session in self._idle:
            self._end(session)
        self._idle, self._token = [], None

    def _end(self, session: Session) -> None:
        """One of an earlier start is ended, and its number may be that of a session somebody is using now."""
        if session.generation == self.module.generation:
            session.close()

    def _room(self) -> int:
        return SESSIONS_MAX if self.module.is_locking else 1

    def _connect(self, until: float) -> None:
        """Under the lock: log in where there is no login. Between two looks it raises what the last one found."""
        while self._token is None or self._generation != self.module.generation:
            self._drop()
            if self._last is not None and time.monotonic() < self._look_at:
                raise self._last.with_traceback(None)
            if not self._was_here or not self.module.lent:
                self._look_for_it()
            elif not self.module.turn.wait(until - time.monotonic()):  # a start ends sessions: nobody may be using one
                raise TokenAway("the token went away, and calls to it have not come back yet")

    def _look_for_it(self) -> None:
        try:
            self._idle.append(self._log_in(self._find()))
        except MpError as error:
            self._last, self._look_at = error, time.monotonic() + LOOK_AGAIN_S
            self._drop()
            raise
        self._last, self._was_here = None, True

    def _find(self) -> Any:
        """The token. Modules tell of tokens that came or went only from their next start on, most of them."""
        if not self._was_here:
            try:
                return pick_token(self.module.list_tokens(), self.settings)
            except TokenAway:
                if self.module.lent:
                    raise
        self.module.restart()
        return pick_token(self.module.list_tokens(), self.settings)

    def _log_in(self, token: Any) -> Session:
        check_tries(int(token.flags), self.settings.token)
        pin = configured.read_pin(self.settings.pin)
        if pin == self._refused_pin:
            raise self._explain_pin(token)
        p11 = self.module.p11
        try:
            session = self._make_session(token, user_pin=pin.reveal().decode())
        except p11.UserAlreadyLoggedIn:
            session = self._make_session(token)  # another pool of this process came first
        except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
            self._refused_pin = pin
            raise self._explain_pin(token) from None
        except RuntimeError as refused:
            raise explain(refused, "logging in") from None
        self._generation, self._token = self.module.generation, token
        try:
            self._prove(session)
        except RuntimeError as refused:
            self._end(session)
            raise explain(refused, "looking at the keys") from None
        except MpError:
            self._end(session)
            raise
        session.is_proven = bool(self.settings.check)
        return session

    def _explain_pin(self, token: Any) -> SetUp:
        return SetUp(
            f"the PIN in {self.settings.pin} is not that of the token {token.label!r}: correct the file, then start"
            " again; this process does not try the same PIN twice"
        )

    def _open(self) -> list[Session]:
        """Another session on the login that there is; none where the token has no more, and one of ours will come back.

        Raises TokenAway, TokenRefused.
        """
        try:
            session = self._make_session(self._token)
        except RuntimeError as refused:
            if is_full(refused) and self._lent:
                return []
            if is_gone(refused):
                self._drop()
            raise explain(refused, "opening a session") from None
        session.is_proven = bool(self.settings.check)
        return [session]

    def _make_session(self, token: Any, **login: str) -> Session:
        return Session(self.module, token, token.open(rw=True, **login), self.settings.issuer, self._vouch)


def pick_token(tokens: list[Any], settings: TokenSettings) -> Any:
    """The one of this label and serial number. Raises TokenAway; SetUp where a serial number has to choose."""
    alike = [one for one in tokens if one.label == settings.token]
    found = [one for one in alike if settings.serial in ("", name_serial(one))]
    if len(found) == 1:
        return found[0]
    if found:
        serials = ", ".join(map(name_serial, found))
        raise SetUp(f"{len(found)} tokens are labelled {settings.token!r} (serial numbers {serials}): name one serial")
    if alike:
        raise TokenAway(
            f"the token {settings.token!r} in the slot is another of that label: its serial number is "
            f"{name_serial(alike[0])}, this issuer's keys are in {settings.serial}: put that one in"
        )
    there = ", ".join(repr(one.label) for one in tokens) or "none"
    raise TokenAway(f"no token {settings.token!r} is in a slot (there: {there}): put it in")


def name_serial(token: Any) -> str:
    """As settings keep it."""
    return bytes(token.serial).decode("ascii", "replace").strip()


def check_tries(flags: int, label: str) -> None:
    """Raises SetUp unless a wrong PIN would still leave a try: the last one is never spent here."""
    if not flags & _PIN_SET:
        raise SetUp(f"the token {label!r} has no user PIN yet: set one as its security officer (C_InitPIN)")
    if flags & _LOCKED:
        raise SetUp(f"the user PIN of the token {label!r} is locked: its security officer sets a new one")
    if flags & _FINAL_TRY:
        raise SetUp(f"the token {label!r} has one PIN try left, which is not spent here: log in once by hand")
