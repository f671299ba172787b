"""An operator at a command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from mpserver.cli import main


class Desk:
    """An operator with a state directory."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.state, self._capsys = folder, folder / "state", capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = main(["--dir", str(self.state), *words])
        out, err = self._capsys.readouterr()
        return code, out, err

    def read(self, *words: str, code: int = 0) -> Any:
        """The JSON value of a command that must end with this code."""
        ended, out, err = self.run(*words, "--json")
        assert ended == code, (ended, err)
        return json.loads(out)

    def write(self, name: str, text: str | bytes) -> str:
        """A file to hand over."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
