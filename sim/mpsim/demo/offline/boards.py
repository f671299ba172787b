"""Boards of a line without a network: bundle, job secret and receipts lie on a medium that is plugged in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mpsim.demo.boards import Board
from mpsim.demo.children import Outcome
from mpsim.demo.expecting import expect

MEDIUM: Final = "media/line"
SETTINGS: Final = f"""bundle = "/{MEDIUM}/bundles"
receipts = "/{MEDIUM}/receipts"
job_secret_file = "/{MEDIUM}/job-secret"
"""
"""mpagent.toml of the factory."""
Note = Callable[[str, str], None]


class OfflineBoard(Board):
    """One board and the medium in it."""

    @property
    def medium(self) -> Path:
        """Where it is mounted."""
        return self.disk / MEDIUM

    @property
    def receipts(self) -> list[Path]:
        """What it wrote for whoever collects them."""
        return sorted((self.medium / "receipts").iterdir())

    def plug_in(self, job_secret: Path | None, *bundles: Path) -> None:
        """A medium with these, and with an empty folder for receipts."""
        shutil.rmtree(self.medium, ignore_errors=True)
        for name in ("bundles", "receipts"):
            (self.medium / name).mkdir(parents=True)
        for one in bundles:
            shutil.copy(one, self.medium / "bundles")
        if job_secret is not None:
            shutil.copy(job_secret, self.medium / "job-secret")

    def pull_out(self) -> None:
        """The medium goes on to the next board; its mount point stays."""
        shutil.rmtree(self.medium)

    def apply(self, bundle: Path, note: Note, *options: str) -> tuple[Outcome, dict[str, Any]]:
        """`mpagent offline apply`: how it ended and its result object."""
        return self._run(note, "offline", "apply", str(bundle), *options)

    def enroll(self, note: Note) -> tuple[Outcome, dict[str, Any]]:
        """`mpagent enroll`, as the service runs it at each boot: it takes what lies on the medium."""
        return self._run(note, "enroll", "--once")

    def enroll_well(self, note: Note) -> dict[str, Any]:
        """The same where it must end well. Raises NotAsSaid with the agent's own words."""
        done, result = self.enroll(note)
        came = f"exit code {done.code}, {result.get('result')} {read_error(result).get('text', '')}".strip()
        expect(f"{self.name} starts", "exit code 0, PASS", came, done.log)
        return result

    def _run(self, note: Note, *words: str) -> tuple[Outcome, dict[str, Any]]:
        def hear(line: str) -> None:
            note(self.name, line.removeprefix("mpagent: ").replace(f"{self.folder.parent}/", ""))

        done = self.children.run(self.name, "mpagent", "--root", str(self.disk), *words, "--json", hear=hear)
        try:
            result = json.loads(done.output)
        except ValueError:
            result = {}
        return done, result if isinstance(result, dict) else {}


def read_error(result: dict[str, Any]) -> dict[str, Any]:
    """What `enroll --json` says of a failure."""
    found = result.get("error", {})
    return found if isinstance(found, dict) else {}
