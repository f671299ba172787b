"""Asks as systemd's service manager does: binds an abstract name, connects, sends nothing, reads to the end.

`python manager.py SOCKET NAME [UID] [--stay]`: NAME is bound as it stands after a NUL, nothing is bound for "-". The
folder is entered before the user is changed, because pytest's folders are closed to others. With --stay nothing is
read until standard input ends. Exit code 3: the connection was not taken.
"""

import os
import socket
import sys
from pathlib import Path


def main() -> int:
    """Writes what it was given to standard output."""
    words = [one for one in sys.argv[1:] if one != "--stay"]
    path, name, uid = Path(words[0]), os.fsencode(words[1]), int(words[2]) if len(words) > 2 else 0
    os.chdir(path.parent)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        if name != b"-":
            line.bind(b"\0" + name)
        try:
            line.connect(path.name)
        except OSError:
            return 3
        line.shutdown(socket.SHUT_WR)
        if "--stay" in sys.argv:
            print("connected", flush=True)
            sys.stdin.read()
            return 0
        with line.makefile("rb") as stream:
            sys.stdout.buffer.write(stream.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
