"""Tells whoever watches how a run stands: standard error or the journal, the service manager, and the standing file.

Watchers may be gone or broken. That is said once where it can be said, and never costs a board its enrollment.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.advice import advise, say
from mpagent.notify import NAP_MAX_S, ServiceManager, SystemdJournal
from mpagent.ports import Journal
from mpagent.progress import Progress
from mpagent.record import Record
from mpagent.standing import Standing, StandingFile, State, read_boot
from mpwire.errors import MpError
from mpwire.limits import HELLO_MAX_BYTES
from mpwire.messages.plain import HELLO

_INFORMS: Final = 6
_WARNS: Final = 4
_FAILS: Final = 3
"""Priorities of syslog(3)."""


class Watchers(NamedTuple):
    """Who may be watching."""

    progress: Progress
    manager: ServiceManager
    journal: SystemdJournal | None
    """Where standard error leads to it; else progress has the lines."""
    standing: StandingFile


class Herald:
    """One run, told as it goes."""

    def __init__(self, watchers: Watchers, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._watchers = watchers
        self._clock = clock
        self._sleep = sleep
        self._silent = False
        self._standing = Standing(State.WORKING, process=os.getpid(), boot=read_boot(), since_s=round(clock(), 3))
        self._last: MpError | None = None
        self._complained = False
        self._write()

    @property
    def in_journal(self) -> bool:
        """Whether what fails is told in the journal, with its fields, so that a second line would only repeat it."""
        return self._watchers.journal is not None

    def begin(self, product: str, silent: bool) -> None:
        """The configuration is read. `silent`: progress goes to nobody who keeps it."""
        self._silent = silent
        self._post(self._standing._replace(product=product))

    def __call__(self, text: str) -> None:
        """Progress."""
        self._post(self._standing._replace(text=text))
        self._watchers.manager.say(text)
        if not self._silent:
            self._log(text, _INFORMS)

    def note(self, record: Record) -> None:
        """What is durable now; a sign of life, too."""
        hello = None if record.hello is None else HELLO.decode(record.hello, HELLO_MAX_BYTES)
        self._post(
            self._standing._replace(
                stage=record.stage.value,
                ueid="" if record.ueid is None else record.ueid.hex(),
                run=self._standing.run if hello is None else hello.run_id.hex(),
            )
        )
        self._watchers.manager.live()

    def attempt(self, run: Callable[[], Record]) -> Record:
        """One try, whose failure is remembered for `wait`."""
        self._change(State.WORKING)
        try:
            return run()
        except MpError as error:
            self._last = error
            raise

    def wait(self, text: str) -> None:
        """The try failed, and another comes later."""
        advice = "" if self._last is None else advise(self._last)
        self._change(State.WAITING, _name_check(self._last), text, f"wait; if it lasts, {advice}" if advice else "wait")
        self._watchers.manager.say(text)
        if not self._silent:
            self._log(text, _WARNS)

    def sleep(self, seconds: float) -> None:
        """Wait, and show that we do nothing worse than that."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._watchers.manager.live()
            self._sleep(min(left, NAP_MAX_S))

    def succeed(self, text: str) -> None:
        """PASS, on screen and LEDs. The line that says so on standard output comes after it, and `release` last."""
        self._change(State.PASS, text=text)

    def release(self) -> None:
        """Whoever waits for the board at the service manager goes on."""
        self._watchers.manager.ready(f"PASS: {self._standing.text}")

    def fail(self, error: MpError, debug: bool) -> None:
        """FAIL, and what to do."""
        self._change(State.FAIL, _name_check(error), str(error), advise(error), error.exit_code)
        self._watchers.manager.say(f"FAIL: {say(error)}")
        if self.in_journal:
            self._log(say(error), _FAILS)
            if debug and error.detail:
                self._log(f"detail: {error.detail}", _FAILS)

    def break_off(self, cause: BaseException) -> None:
        """A bug, whose text may hold anything and is not told here; or a signal."""
        if isinstance(cause, Exception):
            name = type(cause).__name__
            self._change(State.FAIL, name, f"a bug in mpagent: {name}", "report it with the log", 70)
        else:
            self._change(State.STOPPED, text="mpagent was stopped", next_step="start it again; nothing is lost")

    def _change(self, state: State, check: str = "", text: str = "", next_step: str = "", exit_code: int = 0) -> None:
        since_s = self._standing.since_s if state is self._standing.state else round(self._clock(), 3)
        self._post(
            self._standing._replace(
                state=state, check=check, text=text, next=next_step, exit_code=exit_code, since_s=since_s
            )
        )

    def _post(self, standing: Standing) -> None:
        if standing != self._standing:
            self._standing = standing
            self._write()

    def _write(self) -> None:
        try:
            self._watchers.standing.write(self._standing)
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._log(f"nobody will see how this run stands: {error}; it goes on", _WARNS)

    def _log(self, text: str, priority: int) -> None:
        """In the journal with the fields that `journalctl` filters by; docs/operate.md names them."""
        standing = self._standing
        fields = {"MP_STAGE": standing.stage, "MP_RUN": standing.run, "MP_REASON": standing.check}
        known = {name: value for name, value in fields.items() if value}
        journal = self._watchers.journal
        if journal is None or not journal.write(text, priority, known):
            self._watchers.progress(text)


class Watched:
    """ports.Journal that shows each record once it is durable."""

    def __init__(self, journal: Journal, show: Callable[[Record], None]) -> None:
        self._journal = journal
        self._show = show

    def load(self) -> Record:
        """See ports.Journal."""
        record = self._journal.load()
        self._show(record)
        return record

    def save(self, record: Record) -> None:
        """See ports.Journal; what failed is not shown."""
        self._journal.save(record)
        self._show(record)


def open_herald(folder: Path) -> Herald:
    """For this process; `folder` is where the standing lies (compose.Places.run)."""
    stream = os.environ.get("JOURNAL_STREAM")
    watchers = Watchers(
        Progress(sys.stderr, time.monotonic),
        ServiceManager(os.environ.get("NOTIFY_SOCKET")),
        None if sys.stderr is None else SystemdJournal.behind(sys.stderr.fileno(), stream),
        StandingFile(folder),
    )
    return Herald(watchers, time.monotonic, time.sleep)


def _name_check(error: MpError | None) -> str:
    """As the server's log and `--json` name it."""
    return "" if error is None else str(getattr(error, "check", type(error).__name__))
