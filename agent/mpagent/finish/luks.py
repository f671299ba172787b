"""LUKS2 on one partition, under a key that only this board unseals.

The header itself says how far an interrupted run came, so nothing else has to be believed: its UUID is derived from
the board and the slot, and cryptsetup writes it before the first key slot. Ours without a key slot: begin again, for
nobody can have stored anything there. Ours, and the key opens it: done. Ours with key slots that do not open: damage,
and never formatted over. Any other LUKS header: re-keyed where the image names the slot of its present key, or
refused.
"""

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.errors import StorageBroke, Tampered, TargetRefused
from mpagent.finish.program import CRYPTSETUP, Ended, Programs
from mpwire import labels
from mpwire.codec import encode
from mpwire.secret import Secret

_DONE, _NO_KEY = 0, 2
"""Exit codes of cryptsetup: success; no key available with this passphrase."""
_KEY_BYTES_MIN: Final = 16
_PBKDF: Final = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
"""Stretching is for passphrases. The key is random, of 128 bits or more; Argon2 would take memory from a small board at
every boot and add nothing."""


class Volume(NamedTuple):
    """One partition and the key that it has to have."""

    programs: Programs
    node: Path
    key: Secret
    uuid: str
    old_key: Secret | None
    """What opens it as the factory flashed it, where the image says so."""
    was_done: bool
    """An earlier run finished it: then it is never formatted again."""
    say: Callable[[str], None]

    def make(self) -> bool:
        """Bring it to its end from wherever it stands; whether anything had to be done. Raises TargetRefused."""
        if len(self.key) < _KEY_BYTES_MIN:
            raise TargetRefused(f"the slot for {self.node} has fewer than {_KEY_BYTES_MIN} bytes: no disk key")
        found = self._read_uuid()
        if found is None:
            return self._format("no LUKS header yet")
        if self._opens(self.key):
            return self._drop_old_key()
        if found != self.uuid:
            return self._change_key()
        if self._count_keyslots() == 0:
            return self._format("an interrupted format")
        raise Tampered(f"{self.node} has this board's header, and this board's key does not open it")

    def _format(self, why: str) -> bool:
        if self.was_done:
            raise Tampered(f"{self.node} was encrypted before and has lost its header: it is not formatted over")
        self.say(f"encrypting {self.node}: {why}")
        words = ("luksFormat", "--batch-mode", "--type", "luks2", "--uuid", self.uuid, *_PBKDF)
        self._insist(self._run(*words, "--key-file", "{0}", str(self.node), secrets=(self.key,)))
        self._check()
        return True

    def _change_key(self) -> bool:
        """Add ours before the old one goes, so that a cut leaves one that opens."""
        if self.old_key is None:
            raise TargetRefused(f"{self.node} is encrypted already, under a key that is not this board's")
        if not self._opens(self.old_key):
            raise TargetRefused(f"{self.node} is encrypted, and neither this board's key nor the old one opens it")
        self.say(f"giving {self.node} this board's own key")
        words = ("luksAddKey", "--batch-mode", *_PBKDF, "--key-file", "{0}", str(self.node), "{1}")
        self._insist(self._run(*words, secrets=(self.old_key, self.key)))
        self._check()
        self._drop_old_key()
        return True

    def _drop_old_key(self) -> bool:
        if self.old_key is None or not self._opens(self.old_key):
            return False
        words = ("luksRemoveKey", "--batch-mode", str(self.node), "{0}")
        self._insist(self._run(*words, secrets=(self.old_key,)))
        if self._opens(self.old_key) or not self._opens(self.key):
            raise StorageBroke(f"{self.node} did not take the change of its key")
        return True

    def _check(self) -> None:
        if not self._opens(self.key):
            raise StorageBroke(f"{self.node} does not open with the key it was just given")

    def _opens(self, key: Secret) -> bool:
        ended = self._run("open", "--test-passphrase", "--key-file", "{0}", str(self.node), secrets=(key,))
        if ended.code not in (_DONE, _NO_KEY) and self._count_keyslots() > 0:
            self._insist(ended)
        return ended.code == _DONE

    def _read_uuid(self) -> str | None:
        """None where there is no whole LUKS2 header."""
        if self._run("isLuks", "--type", "luks2", str(self.node)).code != _DONE:
            return None
        ended = self._run("luksUUID", str(self.node))
        self._insist(ended)
        return ended.output.strip()

    def _count_keyslots(self) -> int:
        ended = self._run("luksDump", "--dump-json-metadata", str(self.node))
        self._insist(ended)
        return len(json.loads(ended.output)["keyslots"])

    def _run(self, *words: str, secrets: tuple[Secret, ...] = ()) -> Ended:
        return self.programs.run(CRYPTSETUP, words, secrets)

    def _insist(self, ended: Ended) -> None:
        if ended.code != _DONE:
            raise StorageBroke(f"cryptsetup cannot work on {self.node}: {ended.error or f'code {ended.code}'}")


def name_volume(ueid: bytes, slot: str) -> str:
    """The UUID of the volume of one board and slot (RFC 9562, version 8)."""
    digest = bytearray(hashlib.sha256(encode([labels.FINISH_VOLUME, ueid, slot])).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))
