"""What the signed image decides: whom to trust and what to ask for. Read once, from anchors.toml, and frozen."""

from typing import Final, NamedTuple

from mpagent.credentials.allow import AllowList

BOOT_MAX_BYTES: Final = 67_108_864
"""A place of a boot container, in bytes: twice the 32 MiB that a boot partition of an eMMC has at most (the EXT_CSD's
BOOT_SIZE_MULT, one byte of 128 KiB). What is larger is a disk that somebody named by mistake."""


class WantedSlot(NamedTuple):
    """One slot this image expects in a Grant, or in a first loading."""

    name: str
    kind: str
    destination: str
    length: int = 32
    """Bytes of a local value the device makes."""


class FinishChoice(NamedTuple):
    """What the finisher does after enrollment, and where. Paths are from the root on."""

    after: str = "stay"
    """reboot, poweroff or stay."""
    luks: str | None = None
    """The partition to encrypt."""
    luks_slot: str | None = None
    """The slot that holds its key."""
    old_key_slot: str | None = None
    """The slot that holds the key it was flashed with."""
    installer: str | None = None
    """raw, rauc or swupdate."""
    target: str | None = None
    """raw: the block device. Otherwise: the file that the installer is given."""
    state: str | None = None
    """The state partition, which nothing may touch."""
    boot_old: str | None = None
    """The device with the boot container of the provisioning image, zeroed last of all."""
    boot_new: str | None = None
    """The device with the one that boots then, which the line wrote beside it."""
    boot_new_bytes: int | None = None
    boot_new_digest: bytes | None = None
    """SHA-256 of so many bytes of it: the old one stays while these are not there."""


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
    mp_use: str = "sign"
    """"secret": the MP public key opens bundles (docs/wire.md 11), and nothing on this board is signed by MP."""
    bundle_minimum: int = 0
    """No bundle of the first loading below this version. Update authorities count their own."""
    wipes: bool = False
    """A bundle is destroyed where it lies once its receipt is durable."""
    phase: str = "sealed"
    """The last receipt this image sends: "sealed" by a provisioning image, "final" by a production image."""
    finish: FinishChoice | None = None
    credentials: AllowList = AllowList()
    """Who may have which slot in the running system."""
