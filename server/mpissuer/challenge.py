"""Challenges that the issuer need not remember (docs/wire.md 4.2): the nonce's MAC covers the whole Challenge.

nonce = 16 random || 4 key epoch || 8 expiry || 32 HMAC-SHA256; the MAC key is derived, shared by replicas, and changes
with the key epoch. A TPM's credential secret is derived from the same public parts, so it is not stored either.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Final

from mpissuer.credential import make_credential
from mpissuer.errors import Again, Refused
from mpissuer.ports import Authority
from mpwire import labels, registry
from mpwire.limits import CHALLENGE_LIFE_S, CHALLENGE_MAX_BYTES
from mpwire.messages.plain import CHALLENGE, Challenge, Credential, Hello
from mpwire.secret import Secret
from mpwire.ueid import TPM_NAME_BYTES

KEY_EPOCH_S: Final = 86_400
"""A MAC key lives a day; the day before is still accepted, since a challenge outlives midnight."""
MAC_BYTES: Final = 32

CLAIMS_WANTED: Final = (
    registry.CLAIM_LIFE_CYCLE,
    registry.CLAIM_SRK_HASH,
    registry.CLAIM_SWVERSION,
    registry.CLAIM_HARDWARE_IDS,
)


def write_challenge(
    raw_hello: bytes, hello: Hello, authority: Authority, now: int, random: Callable[[int], bytes]
) -> bytes:
    """2.7. A Challenge to this Hello, good for CHALLENGE_LIFE_S."""
    stem = random(16) + struct.pack(">IQ", now // KEY_EPOCH_S, now + CHALLENGE_LIFE_S)
    unsigned = stem + bytes(MAC_BYTES)
    challenge = Challenge(
        hello_hash=hashlib.sha256(raw_hello).digest(),
        nonce=unsigned,
        claims=CLAIMS_WANTED,
        credential=_make_credential(hello, stem, authority),
    )
    blank = CHALLENGE.encode(challenge)
    return blank.replace(unsigned, stem + _mac(blank, stem, authority))


def _make_credential(hello: Hello, stem: bytes, authority: Authority) -> Credential | None:
    if hello.attester.kind != "tpm":
        return None
    assert hello.attester.ek_public is not None  # material was checked before
    secret = derive_credential_secret(stem, hello.attester.attester_id, authority)
    return Credential(
        *make_credential(hello.attester.ek_public, hello.attester.attester_id[TPM_NAME_BYTES:], secret.reveal())
    )


def derive_credential_secret(nonce: bytes, attester_id: bytes, authority: Authority) -> Secret:
    """HMAC of the nonce's public parts, EK Name and AK Name: 32 bytes, nothing stored.

    The key derived is the same for a whole key epoch: an Authority over a token keeps it, so that a flood of Hellos
    costs no operation of the token (promise P5).
    """
    key = authority.derive(labels.CREDENTIAL_SECRET, nonce[16:20])
    return Secret(hmac.digest(key.reveal(), nonce[:28] + attester_id, "sha256"))


def check_challenge(raw: bytes, challenge: Challenge, authority: Authority, now: int) -> None:
    """3.12. Raises Refused("challenge") unless this issuer said exactly these bytes, with a key still in use."""
    stem, mac = challenge.nonce[:28], challenge.nonce[28:]
    (epoch,) = struct.unpack(">I", stem[16:20])
    if not now // KEY_EPOCH_S - 1 <= epoch <= now // KEY_EPOCH_S:
        raise Refused("challenge-expired", "the challenge's key is no longer in use", again=Again.RETRY)
    blank = raw.replace(challenge.nonce, stem + bytes(MAC_BYTES))
    if len(raw) > CHALLENGE_MAX_BYTES or not hmac.compare_digest(mac, _mac(blank, stem, authority)):
        raise Refused("challenge", "this issuer did not say this challenge")


def check_not_expired(challenge: Challenge, now: int) -> None:
    """3.30. Raises Refused("challenge-expired"), which a device answers with a fresh Hello."""
    (expiry,) = struct.unpack(">Q", challenge.nonce[20:28])
    if expiry < now:
        raise Refused("challenge-expired", f"the challenge ended {now - expiry} s ago", again=Again.RETRY)


def _mac(blank: bytes, stem: bytes, authority: Authority) -> bytes:
    key = authority.derive(labels.NONCE_MAC, stem[16:20])
    return hmac.digest(key.reveal(), blank, "sha256")
