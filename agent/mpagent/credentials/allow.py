"""Who may have which slot, as the signed image says: exact names, nothing by pattern, nobody by default."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

UNIT_NAME: Final = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.(service|socket|mount|swap)")
"""A unit that starts processes, an instance by its whole name. Source: systemd.unit(5)."""
CREDENTIAL_ID: Final = re.compile("(?!\\.{1,2}$)[!-.0-9;-~]+")
"""Printable ASCII without ":" and "/", as for file descriptor names. Source: systemd.exec(5)."""
VOLUME_NAME: Final = re.compile("(?!\\.{1,2}$)[!-.0-~]+")
"""A name below /dev/mapper. Source: crypttab(5)."""
UNIT_AND_ID_MAX_BYTES: Final = 83
"""Of both together: an address has 107 bytes, and NUL, 16 digits, "/unit/" and "/" are among them."""
VOLUME_MAX_BYTES: Final = 78
"""The same address with NUL, 16 digits and "/cryptsetup/"."""
KEY_DESCRIPTION: Final = re.compile("[!-9;-~]{1,64}:[!-~]{1,128}")
"""A logon key needs a prefix, which says whose it is, and a user key is told apart by one as well."""
ALLOWED_MAX: Final = 256
"""Entries of one image; a bound for its reader, not a number anybody needs."""
KEY_TYPES: Final = ("logon", "user")
"""logon: the kernel uses it, no process reads it back. user: who holds the keyring reads it. Source: keyrings(7)."""


class UnitRequest(NamedTuple):
    """The service manager wants a credential for a unit that it is about to start."""

    unit: str
    id: str


class VolumeRequest(NamedTuple):
    """systemd-cryptsetup wants the key file of a volume."""

    volume: str


class KernelKey(NamedTuple):
    """A slot that `mpagent credentials keyring` gives to the kernel."""

    description: str
    type: str
    slot: str


class AllowList(NamedTuple):
    """The [[credential]] tables of anchors.toml."""

    slots: Mapping[UnitRequest | VolumeRequest, str] = MappingProxyType({})
    """The one slot that each request gets."""
    keys: tuple[KernelKey, ...] = ()
