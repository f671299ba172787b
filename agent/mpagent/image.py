"""What the signed image decides: whom to trust and what to ask for. Read once, from anchors.toml, and frozen."""

from typing import NamedTuple

from mpagent.credentials.allow import AllowList


class WantedSlot(NamedTuple):
    """One slot this image expects in a Grant."""

    name: str
    kind: str
    destination: str
    length: int = 32
    """Bytes of a local value the device makes."""


class Image(NamedTuple):
    """Trust and choice of one provisioning image."""

    realm: str
    product: str
    roots: tuple[bytes, ...]
    """65-byte points: the active and the standby root."""
    tls_roots: tuple[str, ...]
    """The same roots as X.509 certificates, PEM."""
    slots: tuple[WantedSlot, ...]
    build_time: int
    """Seconds since 1970, UTC: the lowest time this image believes."""
    allow_open: bool = False
    """The product's policy takes open parts; P6 then needs no live proof."""
    mp_key_ids: tuple[bytes, ...] = ()
    """SHA-256(X || Y) of the class keys of this product's parts: the live proof of closed."""
    epoch: int = 0
    swname: str | None = None
    swversion: str | None = None
    oemid: bytes | None = None
    credentials: AllowList = AllowList()
    """Who may have which slot in the running system."""
