"""Where a job secret comes from: a file that was named, the settings, systemd, or whoever types or scans it.

Never from the image, an argument or another variable of the environment. It is asked for once a bundle that is whole
and signed needs one, and the one that the bundle names is taken, whichever comes first.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mpagent.errors import MediumBroke
from mpagent.offline.words import refuse
from mpwire.bundlekeys import name_secret
from mpwire.jobsecret import TEXT_MAX_BYTES, Mistyped, read_job_secret
from mpwire.secret import Secret

CREDENTIAL: Final = "mpagent-job-secret"
TRIES: Final = 3
"""Of a person at the keyboard."""
Reader = Callable[[], Iterator[Secret]]
"""Gives what it has, none where there is nothing; may raise Mistyped, MediumBroke."""


class JobSecrets:
    """The sources of one run, in their order."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers

    def find(self, secret_id: bytes) -> Secret:
        """The one that the bundle names. Raises BundleRefused("bundle-secret"), or what the only source ran into."""
        there, trouble = 0, list[Mistyped | MediumBroke]()
        for reader in self._readers:
            try:
                for secret in reader():
                    there += 1
                    if name_secret(secret) == secret_id:
                        return secret
            except (Mistyped, MediumBroke) as error:
                trouble.append(error)
        if trouble:
            raise trouble[0]
        raise refuse("bundle-secret", "the one given is of another job" if there else "none was given")


def from_file(path: Path, *, required: bool) -> Reader:
    """One line of text; a file that need not be there is passed over where it is not."""

    def read() -> Iterator[Secret]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                raw = file.read(TEXT_MAX_BYTES + 3)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not required:
                return
            raise MediumBroke(f"job secret: cannot read {path}: {error.strerror}") from error
        yield read_text(raw or b"")

    return read


def from_credential() -> Reader:
    """What systemd laid into $CREDENTIALS_DIRECTORY, where it did."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return from_nothing if not folder else from_file(Path(folder) / CREDENTIAL, required=False)


def from_nothing() -> Iterator[Secret]:
    """No source."""
    return iter(())


def from_person(ask: Callable[[str], str], complain: Callable[[str], None]) -> Reader:
    """`ask` shows a prompt and gives the line that was typed or scanned, which is not echoed."""

    def read() -> Iterator[Secret]:
        for tries in range(TRIES, 0, -1):
            try:
                yield read_job_secret(ask("job secret (scan or type, then Enter): "))
                return
            except Mistyped as error:
                if tries == 1:
                    raise
                complain(str(error))

    return read


def read_text(raw: bytes) -> Secret:
    """A file's content. Raises Mistyped."""
    try:
        return read_job_secret(raw.decode("ascii"))
    except UnicodeDecodeError:
        raise Mistyped("job secret: it has characters that no job secret has") from None
