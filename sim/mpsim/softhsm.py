"""A real PKCS#11 token in software (SoftHSM2) in a folder of ours: make it, put it in, pull it out.

The module takes its settings from an environment variable and reads them when it is initialised, so this is the one
place that sets it; a process has one such module, and thus one of these tokens in its slot at a time.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from mpwire.errors import MpError, Retry

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
"""Where Debian installs it."""
PIN: Final = "2718-2818"
_SO_PIN: Final = "3141-5926"
_CONF: Final = "SOFTHSM2_CONF"
_NOT_INITIALIZED: Final = 0x190
"""CKR_CRYPTOKI_NOT_INITIALIZED."""


class SoftHsmBroke(MpError):
    """SoftHSM2 is missing or complains."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


class SoftHsm:
    """One token and its settings. Its secrets are the files in `folder`; whoever copies them has a twin."""

    def __init__(self, folder: Path, label: str = "mpagent") -> None:
        self.folder: Final = folder.absolute()
        self.label: Final = label
        self.tokens: Final = self.folder / "tokens"
        self.pin_file: Final = self.folder / "pin"
        self.tokens.mkdir(parents=True)
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self.offer(None)

    def offer(self, mechanisms: Sequence[str] | None) -> None:
        """From its next insertion on the token has these mechanisms alone ("CKM_AES_CBC"); None: all it knows.

        A positive list, because SoftHSM2 passes over the first entry of a negative one.
        """
        named = ",".join(mechanisms) if mechanisms is not None else "ALL"
        lines = [f"directories.tokendir = {self.tokens}", "objectstore.backend = file", "log.level = ERROR"]
        lines += ["slots.removable = true", f"slots.mechanisms = {named}"]
        self._conf.write_text("\n".join(lines) + "\n")

    def initialize(self, label: str | None = None) -> None:
        """Make a token in a free slot, as C_InitToken and C_InitPIN do; a second call makes a second token."""
        wanted = ["--label", label or self.label, "--so-pin", _SO_PIN, "--pin", PIN]
        command = ["softhsm2-util", "--init-token", "--free", *wanted]
        settings = {**os.environ, _CONF: str(self._conf)}
        try:
            done = subprocess.run(command, env=settings, capture_output=True, check=False)
        except FileNotFoundError as missing:
            raise SoftHsmBroke("softhsm2 is not installed") from missing
        if done.returncode:
            raise SoftHsmBroke("softhsm2-util failed", detail=done.stderr.decode(errors="replace"))

    def insert(self) -> None:
        """Have this process's module find this token and no other, as a new process would."""
        self.select()
        module = ctypes.CDLL(str(MODULE))
        if module.C_Finalize(None) != _NOT_INITIALIZED and module.C_Initialize(None):
            raise SoftHsmBroke("SoftHSM2 does not start")

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process find this token."""
        return {_CONF: str(self._conf)}

    def make_module(self) -> Path:
        """A copy of the module: loaded beside the installed one it is a module of its own, with tokens of its own.

        It looks where this token is whenever it is started, until another token is selected.
        """
        self.select()
        return Path(shutil.copy(MODULE, self.folder / f"module-{len(list(self.folder.glob('module-*')))}.so"))

    def select(self) -> None:
        """Modules that this process starts from now on find this token."""
        os.environ[_CONF] = str(self._conf)

    def pull(self) -> None:
        """The token is gone, its sessions too."""
        self.tokens.rename(self.folder / "pulled")
        self.tokens.mkdir()

    def put_back(self) -> None:
        """The same token again."""
        shutil.rmtree(self.tokens)
        (self.folder / "pulled").rename(self.tokens)

    @property
    def _conf(self) -> Path:
        return self.folder / "softhsm2.conf"
