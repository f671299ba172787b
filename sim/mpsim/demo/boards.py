"""The boards of both demos: a folder with a chip and a disk, and the commands run on it."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpsim.demo.children import Children, Outcome
from mpsim.demo.expecting import expect

PART: Final = "imx8mm"
_PREFIX: Final = re.compile(r"^mpagent: ")


@dataclass(frozen=True, slots=True)
class Board:
    """One board under provisioning. `name` is also its log's name."""

    name: str
    what: str
    folder: Path
    children: Children

    @property
    def disk(self) -> Path:
        """Its root file system."""
        return self.folder / "disk"

    @property
    def log(self) -> Path:
        """What its commands said."""
        return self.children.logs / f"{self.name}.log"

    def make(self, *options: str) -> None:
        """Solder it: `mpsim board new`."""
        done = self.children.run(self.name, "mpsim", "board", "new", str(self.folder), "--part", PART, *options)
        expect(f"{self.name} is made", 0, done.code, done.log)

    def copy_chip(self, other: "Board") -> None:
        """A cloner's work: the identity of another board's chip, an empty disk."""
        self.make("--closed")
        shutil.rmtree(self.folder / "chip")
        shutil.copytree(other.folder / "chip", self.folder / "chip")

    def copy_disk(self, other: "Board") -> None:
        """A cloner's other way: everything another board has stored, on this chip."""
        shutil.rmtree(self.disk)
        shutil.copytree(other.disk, self.disk)

    def flash(self, anchors: str, settings: str) -> None:
        """The provisioning image, and what the factory sets."""
        (self.disk / "usr/lib/mpagent/anchors.toml").write_text(anchors, encoding="utf-8")
        (self.disk / "etc/mpagent/mpagent.toml").write_text(settings, encoding="utf-8")

    def power_cycle(self) -> None:
        """Off and on."""
        done = self.children.run(self.name, "mpsim", "board", "power-cycle", str(self.folder))
        expect(f"{self.name} starts again", 0, done.code, done.log)

    def enroll(self, note: Callable[[str, str], None]) -> tuple[Outcome, dict[str, Any]]:
        """`mpagent enroll`, once: how it ended and its result object. Its progress goes to `note`."""

        def hear(line: str) -> None:
            note(self.name, _PREFIX.sub("", line))

        command = ("mpagent", "--root", str(self.disk), "enroll", "--once", "--json")
        done = self.children.run(self.name, *command, hear=hear)
        return done, done.read_json(f"{self.name} enrolls")

    def enroll_well(self, note: Callable[[str, str], None]) -> dict[str, Any]:
        """The same where it must end well. Raises NotAsSaid with the agent's own words."""
        done, result = self.enroll(note)
        why = result.get("error", {}).get("text", "")
        came = f"exit code {done.code}, {result.get('result')} {why}".strip()
        expect(f"{self.name} enrolls", "exit code 0, PASS", came, done.log)
        return result

    def read_status(self) -> dict[str, Any]:
        """`mpagent status`."""
        done = self.children.run(self.name, "mpagent", "--root", str(self.disk), "status", "--json")
        expect(f"{self.name} tells its status", 0, done.code, done.log)
        status: dict[str, Any] = done.read_json(f"{self.name} tells its status")
        return status

    def hash_secrets(self, names: list[str]) -> dict[str, str]:
        """SHA-256 of each secret, unsealed by `mpagent secret get` just now. The values go nowhere."""
        return {name: hashlib.sha256(self._get(name)).hexdigest() for name in names}

    def snapshot(self) -> dict[str, str]:
        """SHA-256 of every file the board keeps, but for the lock, which only says who runs."""
        kept = self.disk / "var/lib/mpagent"
        files = [path for path in sorted(kept.rglob("*")) if path.is_file() and path != kept / "lock"]
        return {str(path.relative_to(kept)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def _get(self, name: str) -> bytes:
        command = ("mpagent", "--root", str(self.disk), "secret", "get", name)
        done = self.children.run(self.name, *command, silent=True)
        expect(f"{self.name} unseals {name}", 0, done.code, done.log)
        return done.output


class LineBoard(Board):
    """A board on a line with a network."""

    def install(self, anchors: str, server: str) -> None:
        """Flash the provisioning image and connect it to a line."""
        self.flash(anchors, _write_settings(server))

    def connect(self, server: str) -> None:
        """Which server the line leads to."""
        (self.disk / "etc/mpagent/mpagent.toml").write_text(_write_settings(server), encoding="utf-8")


def _write_settings(server: str) -> str:
    return f'server = "{server}"\n'
