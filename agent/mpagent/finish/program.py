"""Starts the few programs of others that the finisher needs: fixed paths, fixed words, secrets by a pipe alone."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.errors import ProgramMissing
from mpwire.secret import Secret

CRYPTSETUP: Final = Path("usr/sbin/cryptsetup")
RAUC: Final = Path("usr/bin/rauc")
SWUPDATE: Final = Path("usr/bin/swupdate")
SYSTEMCTL: Final = Path("usr/bin/systemctl")
"""Below the root: no search, and no environment that could change one."""
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_PIPE_MAX_BYTES: Final = 4_096
"""A secret is written to its pipe whole before the program starts; a pipe of Linux takes 64 KiB."""
_TEXT_MAX: Final = 400


class Ended(NamedTuple):
    """What a program said at its end."""

    code: int
    output: str
    error: str
    """Its last words, bounded and without control characters, for a person."""


class Programs(NamedTuple):
    """The programs below one root."""

    root: Path

    def run(self, program: Path, words: Sequence[str], secrets: Sequence[Secret] = ()) -> Ended:
        """Wait for its end. "{0}", "{1}" ... in `words` become the paths of pipes that give the secrets once each.

        No secret is in an argument, in the environment, or in a file. Raises ProgramMissing.
        """
        path = self.root / program
        if not os.access(path, os.X_OK):
            raise ProgramMissing(f"/{program} is not in this image")
        with ExitStack() as stack:
            ends = [stack.enter_context(_pipe(one)) for one in secrets]
            named = [word.format(*(f"/dev/fd/{end}" for end in ends)) if "{" in word else word for word in words]
            try:
                done = subprocess.run(
                    [str(path), *named],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    pass_fds=ends,
                    env=_ENVIRONMENT,
                    check=False,
                )
            except OSError as error:
                raise ProgramMissing(f"/{program} cannot be started: {error.strerror}") from error
        return Ended(done.returncode, done.stdout.decode("utf-8", "replace"), _shorten(done.stderr))


@contextmanager
def _pipe(secret: Secret) -> Iterator[int]:
    """The reading end of a pipe that holds the secret; what nobody read is gone with it."""
    if len(secret) > _PIPE_MAX_BYTES:
        raise ValueError(f"a key of more than {_PIPE_MAX_BYTES} bytes")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writing, secret.reveal())
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def _shorten(raw: bytes) -> str:
    text = " ".join(raw.decode("utf-8", "replace").split())
    return "".join(one if one.isprintable() else "?" for one in text)[-_TEXT_MAX:]
