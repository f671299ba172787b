"""The order: what enrollment, which has the network and no right, tells the finisher, which is root without network.

It says that every secret was unsealed in this boot and which Grant the board stands on. It carries no argument: verbs
and devices come from the signed image, the next image from the Grant, whose signature the finisher checks again. Its
tag is made under a key that only this board's sealer opens, so whoever merely writes the state partition orders
nothing; and it names the boot, so yesterday's order is none.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from mpagent.durable import Damaged, Disk
from mpagent.errors import StorageBroke, Tampered, Unordered
from mpagent.image import FinishChoice
from mpagent.record import FINISHED, Record
from mpwire import labels
from mpwire.codec import encode
from mpwire.errors import Malformed
from mpwire.messages.plain import HASH, UEID
from mpwire.secret import Secret
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf

FILE: Final = "order"
ORDER_VERSION: Final = 1
ORDER_MAX_BYTES: Final = 512
BOOT_ID: Final = Path("proc/sys/kernel/random/boot_id")
"""Below the root; 36 characters that the kernel draws at every boot."""
LUKS, INSTALL, RETIRE = "luks-format", "install-image", "retire-boot"
VERBS: Final = (LUKS, INSTALL, RETIRE, "reboot", "poweroff", "stay")
"""The closed list."""


class Order(NamedTuple):
    """One boot's permission."""

    ueid: bytes
    boot_id: bytes
    grant_digest: bytes | None
    """None where the record was lost and the vault adopted."""
    generation: int
    verbs: tuple[str, ...]
    tag: bytes


ORDER = MapOf(
    "order",
    Order,
    Field(1, "ueid", UEID, "the chip"),
    Field(2, "boot_id", Octets(16), "the boot in which every secret was unsealed"),
    Field(3, "grant_digest", HASH, "SHA-256 of the Grant the board stands on", required=False),
    Field(4, "generation", Integer(), "vault generation whose key made the tag"),
    Field(5, "verbs", ListOf(OneOf(*VERBS), len(VERBS), 1), "what the image asks for, in this order"),
    Field(6, "tag", HASH, "HMAC-SHA256 under the finish key"),
    constants={0: ORDER_VERSION},
)


class KeySource(Protocol):
    """A vault generation that the chip has just unsealed."""

    def derive(self, label: bytes) -> Secret:
        """A key that no other board can make."""


def list_verbs(choice: FinishChoice) -> tuple[str, ...]:
    """What this image asks for; the last one says what happens then."""
    asked = {LUKS: choice.luks, INSTALL: choice.installer, RETIRE: choice.boot_old}
    return (*(verb for verb, wanted in asked.items() if wanted is not None), choice.after)


def read_boot_id(root: Path) -> bytes:
    """16 bytes. Raises StorageBroke where the kernel does not tell them."""
    path = root / BOOT_ID
    try:
        return bytes.fromhex(path.read_text("ascii").strip().replace("-", ""))
    except (OSError, ValueError) as error:
        raise StorageBroke(f"{path}: cannot be read, so no boot can be told from another") from error


def write_order(disk: Disk, record: Record, choice: FinishChoice, keys: KeySource, root: Path) -> None:
    """For a board that is done and was unsealed just now; a second order of one boot is the same bytes."""
    if record.stage not in FINISHED:
        return
    assert record.ueid is not None  # a record that is done names its chip
    boot_id = read_boot_id(root)
    draft = Order(record.ueid, boot_id, record.grant_digest, record.generation, list_verbs(choice), b"")
    disk.write(FILE, ORDER.encode(draft._replace(tag=_make_tag(draft, keys))))


def read_order(disk: Disk, boot_id: bytes) -> Order:
    """This boot's order, not believed yet. Raises Unordered where there is none, Tampered for what no agent wrote."""
    try:
        raw = disk.read(FILE, ORDER_MAX_BYTES)
        order = None if raw is None else ORDER.decode(raw, ORDER_MAX_BYTES)
    except (Damaged, Malformed) as error:
        raise Tampered(f"the order is not what mpagent wrote: {error}") from error
    if order is None or order.boot_id != boot_id:
        raise Unordered("enrollment has given no order in this boot")
    return order


def check_order(order: Order, record: Record, choice: FinishChoice, keys: KeySource) -> None:
    """Raises Tampered for an order that this board's enrollment did not give, or gave for something else."""
    told = (order.ueid, order.grant_digest, order.generation)
    if told != (record.ueid, record.grant_digest, record.generation):
        raise Tampered("the order speaks of another board, Grant or vault than the record")
    if not hmac.compare_digest(order.tag, _make_tag(order, keys)):
        raise Tampered("the order was not given by this board's enrollment")
    if order.verbs != list_verbs(choice):
        raise Tampered("the order asks for something else than this image")


def _make_tag(order: Order, keys: KeySource) -> bytes:
    """Over everything but the tag itself."""
    said = encode([ORDER_VERSION, order.ueid, order.boot_id, order.grant_digest, order.generation, list(order.verbs)])
    return hmac.digest(keys.derive(labels.FINISH_ORDER).reveal(), said, hashlib.sha256)
