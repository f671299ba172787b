"""The keys of a bundle, each from the one above (docs/wire.md 11.2).

PRK, which is a token's at the OEM and re-made by the chip on a board, is reached through `Expand` alone.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from mpwire import hkdf, labels
from mpwire.codec import encode
from mpwire.errors import Unauthentic
from mpwire.messages.bundle import BUNDLE, KEY_CHECK_BYTES, SECRET_ID_BYTES, Bundle
from mpwire.secret import Secret

Expand = Callable[[bytes], Secret]
"""HKDF-Expand of the PRK with this info, 32 bytes."""
JOB_SECRET_MIN_BYTES: Final = 16
JOB_SECRET_MAX_BYTES: Final = 64
_NO_SECRET: Final = bytes(32)
_KEK_INFO: Final = b"kek"


def digest_manifest(bundle: Bundle) -> bytes:
    """SHA-256 of the manifest before anything is encrypted: no digests, and a key check of zeros."""
    return hashlib.sha256(BUNDLE.encode(bundle._replace(digests=(), key_check=bytes(KEY_CHECK_BYTES)))).digest()


def make_info(bundle: Bundle) -> bytes:
    """Info of the one expand step under the PRK: every bundle has another, by its salt."""
    return encode([labels.BUNDLE_KEY, bundle.product, bundle.job, bundle.minimum, digest_manifest(bundle), bundle.salt])


def make_kek(bundle: Bundle, expand: Expand, job_secret: Secret | None) -> Secret:
    """KEK = HKDF-SHA256(salt = job secret or 32 zero bytes, IKM = K1, info "kek").

    Raises Unauthentic("bundle-secret") where the bundle needs a job secret and this is not it, or needs none.
    """
    if bundle.secret_id != (None if job_secret is None else name_secret(job_secret)):
        raise Unauthentic("bundle-secret")
    first = expand(make_info(bundle))
    return hkdf.expand(hkdf.extract(_NO_SECRET if job_secret is None else job_secret.reveal(), first), _KEK_INFO)


def name_secret(job_secret: Secret) -> bytes:
    """What tells one job secret from another: 8 bytes that say nothing of it, as it has 128 bits or more."""
    message = encode(labels.BUNDLE_JOB_SECRET)
    return hmac.digest(job_secret.reveal(), message, hashlib.sha256)[:SECRET_ID_BYTES]


def make_key_check(kek: Secret) -> bytes:
    """What stands in the manifest, so that a wrong key is told from torn bytes."""
    return hkdf.expand(kek, encode([labels.BUNDLE_KEY_CHECK])).reveal()[:KEY_CHECK_BYTES]


def check_key(bundle: Bundle, kek: Secret) -> None:
    """Raises Unauthentic("bundle-key"): another class key, update key or life cycle."""
    if not hmac.compare_digest(bundle.key_check, make_key_check(kek)):
        raise Unauthentic("bundle-key")


def make_content_key(kek: Secret, number: int, uid: bytes | None) -> Secret:
    """Key of one component, by its place in the manifest and the board it is for."""
    return hkdf.expand(kek, encode([labels.BUNDLE_CONTENT, number, uid or b""]))


def make_check_key(kek: Secret) -> Secret:
    """Key of the check values of receipts (6.2)."""
    return hkdf.expand(kek, encode([labels.BUNDLE_CHECK]))


def make_receipt_key(expand: Expand, product: str, job: str) -> Secret:
    """Key of the HMAC over receipts: whoever makes it holds the key that the bundle is under."""
    return expand(encode([labels.BUNDLE_RECEIPT_KEY, product, job]))


def make_mpk_id(expand: Expand) -> bytes:
    """Name of an MP public key that is a secret, 16 bytes: no digest of the key, for that was a key elsewhere."""
    return expand(encode([labels.MPK_ID])).reveal()[:16]
