"""The listening socket: handed over by systemd (sd_listen_fds(3)), or made here for a shell."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mpagent.errors import ConfigWrong, StorageFull

_FIRST: Final = 3
"""SD_LISTEN_FDS_START."""
BACKLOG: Final = 128


def take_listener() -> socket.socket | None:
    """The one socket that systemd passed to this process; None when it passed none.

    Raises ConfigWrong for several sockets or one of another kind.
    """
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    if count != "1":
        raise ConfigWrong(f"systemd passes {count} sockets; the socket unit must have one ListenStream=")
    try:
        listener = socket.socket(fileno=_FIRST)
    except OSError as error:
        raise ConfigWrong(f"what systemd passes is no socket: {error.strerror}") from error
    listener.set_inheritable(False)
    accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (listener.family, listener.type, accepts) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        raise ConfigWrong("the socket unit must have ListenStream= with a path, and Accept=no")
    return listener


@contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """A socket at `path` for its owner alone, gone again with the block. One that nobody serves is replaced.

    Raises StorageFull when there is something else, or somebody serves it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _bind(listener, path)
            listener.listen(BACKLOG)
        except OSError as error:
            raise StorageFull(f"cannot listen at {path}: {error.strerror or error}") from error
        try:
            yield listener
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


def _bind(listener: socket.socket, path: Path) -> None:
    if _is_left_over(path):
        path.unlink()
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _is_left_over(path: Path) -> bool:
    """A socket of a process that has ended. Raises OSError EADDRINUSE when one answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        return True
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
