"""Slots of destination `keyring` as keys of the running kernel, for dm-crypt, fscrypt, or a program that asks for one.

They go into the user keyring (`@u`, user-keyring(7)) of whoever runs the command: it lasts as long as the user has
processes, is in no process's memory, and every session that links it holds its keys. A service gets such a session by
KeyringMode=shared (systemd.exec(5)). Nobody but a holder sees, finds or uses them.
"""

import errno
import os
from collections.abc import Callable
from typing import Final

from mpagent.credentials.allow import KernelKey
from mpagent.hal.caam.keyctl import SESSION, USER, KernelKeys
from mpwire.errors import MpError, Retry
from mpwire.secret import Secret

_CAUSES: Final = {
    errno.EDQUOT: "the user's quota of keys is used up (/proc/key-users)",
    errno.EINVAL: "a key of this type has 1 to 32767 bytes",
    errno.ENOSYS: "this kernel has no keyrings",
    errno.ENODEV: "this kernel does not know the type",
}


class KeyRefused(MpError):
    """The kernel does not take a key. Keys handed over before it stay."""

    exit_code, retry = 77, Retry.OPERATOR


def hand_over(wanted: tuple[KernelKey, ...], read: Callable[[str], Secret], keys: KernelKeys) -> None:
    """Put each key where it belongs, in place of one of the same type and description. Raises KeyRefused.

    Nothing is put when one of the slots cannot be read: `read` raises MpError first.
    """
    values = [(key, read(key.slot)) for key in wanted]
    with_holder(keys)
    for key, value in values:
        try:
            old = keys.find(key.type, key.description, USER)
            if old is not None:
                keys.drop(old, USER)
            keys.add(key.type, key.description, value.reveal(), USER)
        except OSError as error:
            raise _refuse(f"key {key.description!r}", error) from error


def with_holder(keys: KernelKeys) -> None:
    """Hold the user keyring by a session of our own: without it the kernel lets nobody set what a key permits."""
    try:
        keys.join_session()
        keys.link(USER, SESSION)
    except OSError as error:
        raise _refuse("the user keyring", error) from error


def _refuse(what: str, error: OSError) -> KeyRefused:
    cause = _CAUSES.get(error.errno or 0, os.strerror(error.errno or 0))
    return KeyRefused(f"the kernel refuses {what}: {cause}")
