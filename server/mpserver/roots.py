"""The public halves of both roots, as the devices have them."""

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpserver.authority import read_certificate
from mpserver.keystore import ROOT, STANDBY, Keystore


def read_root_points(store: Keystore) -> tuple[bytes, ...]:
    """65-byte points: the active root, the standby root."""
    return tuple(_point(store, name) for name in (ROOT, STANDBY))


def _point(store: Keystore, name: str) -> bytes:
    certificate = read_certificate(store.path / f"{name}.crt", store.read_public(f"{name}.crt"))
    return certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
