"""The card's PIN: from a credential file, in memory as a Secret, on no line of any log."""

import os
import stat
from pathlib import Path
from typing import Final

from mpagent.errors import ConfigWrong
from mpwire.secret import Secret

PIN_MIN_BYTES: Final = 6
PIN_MAX_BYTES: Final = 8
"""SP 800-73-4 Part 2 section 2.4.3. A PIN of another length would cost a try and could not be right."""
_FILE_MAX_BYTES: Final = PIN_MAX_BYTES + 2
"""A line's end at most."""
_PADDING: Final = b"\xff"


class Pin:
    """One PIN for the length of a run. Once a card refused it, it is not given again before the next start."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.refused = False
        self._padded: Secret | None = None

    def padded(self) -> Secret:
        """8 bytes, FF behind the PIN; the file is read at the first call. Raises ConfigWrong, naming the file."""
        if self._padded is None:
            self._padded = Secret(self._read().ljust(PIN_MAX_BYTES, _PADDING))
        return self._padded

    def _read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_FILE_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigWrong(f"{self.path}: the card's PIN cannot be read: {error.strerror}") from error
        if mode & stat.S_IRWXO:
            raise ConfigWrong(f"{self.path} holds the card's PIN and every user may touch it: chmod o= it")
        pin = text.rstrip(b"\r\n")
        # The text of these complaints tells a length at most.
        if len(text) > _FILE_MAX_BYTES or not PIN_MIN_BYTES <= len(pin) <= PIN_MAX_BYTES:
            raise ConfigWrong(f"{self.path}: a PIN has {PIN_MIN_BYTES} to {PIN_MAX_BYTES} characters on one line")
        if not all(0x21 <= letter <= 0x7E for letter in pin):
            raise ConfigWrong(f"{self.path}: a PIN is digits, or what a keyboard writes in ASCII")
        return pin
