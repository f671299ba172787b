"""/sys of an i.MX in a folder, as the kernel's drivers spell it: what the backend `imx` reads, made from nothing.

Offsets are written down here once more, from the kernel's and U-Boot's guides, and not taken from the product's table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpsim import fuses

UID: Final = bytes.fromhex("0123456789abcdef")
UPPER: Final = bytes.fromhex("fedcba9876543210")
SRK_HASH: Final = bytes(range(1, 33))
SRK_HASH_512: Final = bytes(range(101, 165))


@dataclass(frozen=True)
class Kind:
    """What the kernel of this part prints, and how it names its fuse file."""

    soc_id: str
    serial: str
    fuse_file: str
    size_bytes: int
    srk_offset: int
    srk_hash: bytes
    revision: str = "1.1"


_8M: Final = ("imx-ocotp0", 1024, 0x60, SRK_HASH)
_ELE_SERIAL: Final = (UPPER + UID).hex()
KINDS: Final = {
    "imx8mq": Kind("i.MX8MQ", UID.hex().upper(), *_8M, revision="2.1"),
    "imx8mm": Kind("i.MX8MM", UID.hex().upper(), *_8M),
    "imx8mn": Kind("i.MX8MN", UID.hex().upper(), *_8M),
    "imx8mp": Kind("i.MX8MP", (UPPER + UID).hex().upper(), "imx-ocotp0", 1536, 0x60, SRK_HASH),
    "imx8qm": Kind("0x1", UID.hex().upper(), "imx-scu-ocotp0", 3200, 0xB48, SRK_HASH_512),
    "imx8qxp": Kind("0x2", UID.hex().upper(), "imx-scu-ocotp0", 3200, 0xB68, SRK_HASH_512),
    "imx8ulp": Kind("i.MX8ULP", _ELE_SERIAL, "fsb_s400_fuse0", 2048, 0x1E0, SRK_HASH),
    "imx93": Kind("i.MX93", _ELE_SERIAL, "ELE-OCOTP1", 2048, 0x200, bytes(32)),
    "imx95": Kind("i.MX95", _ELE_SERIAL, "ELE-OCOTP0", 2048, 0x200, bytes(32)),
}
HAB_PARTS: Final = ("imx8mq", "imx8mm", "imx8mn", "imx8mp")


@dataclass(frozen=True)
class Tree:
    """One part below `root`."""

    root: Path
    part: str

    @property
    def fuse_path(self) -> Path:
        return self.root / "sys/bus/nvmem/devices" / KINDS[self.part].fuse_file / "nvmem"

    def write(self, name: str, text: str) -> None:
        """One attribute of soc0, with the line end the kernel prints."""
        (self.root / "sys/devices/soc0" / name).write_text(f"{text}\n")

    def poke(self, offset: int, content: bytes) -> None:
        """Burn these bytes."""
        fused = bytearray(self.read())
        fused[offset : offset + len(content)] = content
        self.fuse_path.write_bytes(fused)

    def close_fuse(self) -> None:
        """Blow SEC_CONFIG[1] of a HAB part."""
        self.fuse_path.write_bytes(fuses.blow_closed(self.read()))

    def read(self) -> bytes:
        return self.fuse_path.read_bytes()


def make_tree(root: Path, part: str, content: bytes | None = None) -> Tree:
    """An open part; `content` are the bytes of its fuse file, where another maker has them."""
    kind, tree = KINDS[part], Tree(root, part)
    tree.fuse_path.parent.mkdir(parents=True)
    (root / "sys/devices/soc0").mkdir(parents=True)
    for name, text in (
        ("family", "Freescale i.MX"),
        ("soc_id", kind.soc_id),
        ("revision", kind.revision),
        ("machine", f"Some {part} board"),
        ("serial_number", kind.serial),
    ):
        tree.write(name, text)
    if content is not None:
        tree.fuse_path.write_bytes(content)
        tree.write("serial_number", fuses.read_serial_number(part, content))
    elif part in HAB_PARTS:
        tree.fuse_path.write_bytes(fuses.burn(part, UID, UPPER, SRK_HASH))
    else:
        tree.fuse_path.write_bytes(bytes(kind.size_bytes))
        tree.poke(kind.srk_offset, kind.srk_hash)
    return tree
