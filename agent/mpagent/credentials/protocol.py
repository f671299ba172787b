"""How systemd says on an AF_UNIX socket what it wants: in the address that it binds before it connects.

LoadCredential= (systemd.exec(5)): NUL RANDOM "/unit/" UNIT "/" ID; key files (crypttab(5)): NUL RANDOM "/cryptsetup/"
VOLUME, all in the abstract namespace, where anybody may bind any name. So the name is worth what the kernel says of
who connected (SO_PEERCRED, unix(7)). The client sends nothing and reads to the end.
"""

import re
import socket
import struct
from typing import Final, NamedTuple

from mpagent.credentials.allow import UnitRequest, VolumeRequest

_UNIT: Final = re.compile(rb"\0[0-9A-Za-z]{1,32}/unit/([!-.0-~]+)/([!-.0-~]+)")
_VOLUME: Final = re.compile(rb"\0[0-9A-Za-z]{1,32}/cryptsetup/([!-.0-~]+)")
_UCRED: Final = struct.Struct("iII")
"""struct ucred: process, user, group; users as this process's namespace maps them."""
MANAGER_UID: Final = 0
"""The service manager and what it forks to load credentials, before it drops any right."""
TOO_LONG: Final = bytes(1_048_578)
"""An answer that LoadCredential= refuses: a credential has at most 1 MiB (systemd.exec(5)), so the unit does not start.
An empty answer would be taken as an empty credential."""


class Peer(NamedTuple):
    """Who connected, by the kernel's word, and the name that he gave himself."""

    uid: int
    address: bytes

    def __str__(self) -> str:
        return f"uid {self.uid} as {self.address.decode('latin-1')!a}"


def read_peer(connection: socket.socket) -> Peer:
    """Raises OSError."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    address = connection.getpeername()
    return Peer(uid, address if isinstance(address, bytes) else address.encode("utf-8", "surrogateescape"))


def read_request(address: bytes) -> UnitRequest | VolumeRequest | None:
    """What is wanted; None for any other address: unnamed, of the file system, or of another form."""
    if found := _UNIT.fullmatch(address):
        return UnitRequest(found[1].decode("ascii"), found[2].decode("ascii"))
    if found := _VOLUME.fullmatch(address):
        return VolumeRequest(found[1].decode("ascii"))
    return None
