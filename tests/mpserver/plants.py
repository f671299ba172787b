"""Images with something planted in them, made by the tools that make them in the field."""

import base64
import bz2
import gzip
import lzma
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

import zstandard
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mpserver.scan.budget import Budget
from mpserver.scan.filters import Sought, make_filter, read_filter
from mpserver.scan.findings import Finding, Notebook
from mpserver.scan.regions import Memory, Space
from mpserver.scan.walk import Walk
from mpwire import cose, labels, mp, p256, registry
from mpwire.codec import encode
from mpwire.evidence import outer_headers
from mpwire.mpk import HiddenMpKey
from tests.vectors.silicon import A_KEY

KEY: Final = A_KEY
"""X || Y of NXP's published example, as the product's secret."""
POINT: Final = b"\x04" + KEY
SOUGHT: Final = read_filter(make_filter(HiddenMpKey(KEY)))
TOOLS: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


def noise(size: int, seed: int = 7) -> bytes:
    """The same random bytes each time."""
    return Random(seed).randbytes(size)


def run(*words: str | Path, folder: Path | None = None, told: bytes = b"") -> bytes:
    """A tool, which has to succeed."""
    done = subprocess.run(
        [str(one) for one in words], cwd=folder, input=told, capture_output=True, env={"PATH": TOOLS}, timeout=60
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def turn(body: bytes) -> bytes:
    """Each 32-bit word turned round."""
    return b"".join(body[at : at + 4][::-1] for at in range(0, len(body), 4))


def dump(body: bytes, width: int, skip: int = 0, base: int = 0x40000000) -> bytes:
    """U-Boot's `md`: groups of `width` bytes as the processor reads them, with address and letters."""
    whole = noise(skip) + body + noise(40)
    lines = []
    for at in range(0, len(whole), 16):
        line = whole[at : at + 16]
        groups = [line[one : one + width] for one in range(0, len(line), width)]
        digits = " ".join(one.hex() if width < 4 else one[::-1].hex() for one in groups)
        letters = "".join(chr(one) if 32 <= one < 127 else "." for one in line)
        lines.append(f"{base + at:08x}: {digits}    {letters}\n")
    return "".join(lines).encode()


def wrap(body: bytes, width: int, between: bytes = b"\n") -> bytes:
    """Lines of a width."""
    return between.join(body[at : at + width] for at in range(0, len(body), width))


_PEM = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), POINT).public_bytes(
    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
)

FORMS: Final[dict[str, bytes]] = {
    "raw": KEY,
    "x-alone": KEY[:32],
    "words": turn(KEY),
    "little-endian": KEY[:32][::-1] + KEY[32:][::-1],
    "spki": p256.write_spki(POINT),
    "compressed": b"\x02" + KEY[:32],
    "cose-key": cose.spell_key(POINT),
    "pem": _PEM,
    "pem-in-json": b'{"key": "' + _PEM.replace(b"\n", b"\\n") + b'"}',
    "hex": KEY.hex().encode(),
    "hex-upper": KEY.hex().upper().encode(),
    "hex-words-turned": turn(KEY).hex().encode(),
    "hex-little-endian": KEY[:32][::-1].hex().encode(),
    "hex-spki": p256.write_spki(POINT).hex().encode(),
    "hex-colons": KEY.hex(":").encode(),
    "hex-blanks": KEY.hex(" ").upper().encode(),
    "c-array": ", ".join(f"0x{one:02x}" for one in KEY).encode(),
    "c-lines": "\n".join(f"\t0x{one:02X}," for one in KEY).encode(),
    "c-words": ", ".join(f"0x{KEY[at : at + 4].hex()}" for at in range(0, 64, 4)).encode(),
    "dts-words": ("<" + " ".join(f"0x{KEY[at : at + 4].hex()}" for at in range(0, 64, 4)) + ">").encode(),
    "escapes": "".join(f"\\x{one:02x}" for one in KEY).encode(),
    "md.b": dump(KEY, 1),
    "md.b-split-line": dump(KEY, 1, skip=14),
    "md.l": dump(KEY, 4, skip=8),
    "md.l-of-words": dump(turn(KEY), 4),
    "xxd": dump(KEY, 2, skip=6),
    **{f"base64-{lead}": base64.b64encode(noise(lead) + KEY) for lead in range(3)},
    **{f"base64url-{lead}": base64.urlsafe_b64encode(noise(lead) + KEY).rstrip(b"=") for lead in range(3)},
    "base64-mime": wrap(base64.b64encode(noise(33) + KEY), 76, b"\r\n"),
}
"""Every spelling a key is looked for in."""


def private_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A fresh one."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def pem_of(key: ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """Unencrypted."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def make_tree(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder of files."""
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def _ext(kind: str, *options: str) -> Callable[[Path, Path], None]:
    def make(tree: Path, image: Path) -> None:
        run("mke2fs", "-q", "-t", kind, *options, "-d", tree, image, "6M")

    return make


def make_fat(tree: Path, image: Path, size: str = "3M", bits: str = "12") -> None:
    """mkfs.vfat and mtools."""
    run("truncate", "-s", size, image)
    run("mkfs.vfat", "-F", bits, image)
    for one in sorted(tree.iterdir()):
        run("mcopy", "-s", "-i", image, one, "::/")


def _squashfs(packer: str) -> Callable[[Path, Path], None]:
    def make(tree: Path, image: Path) -> None:
        run("mksquashfs", tree, image, "-quiet", "-no-progress", "-comp", packer, "-noappend")

    return make


def make_tar(tree: Path, image: Path) -> None:
    """GNU tar."""
    run("tar", "cf", image, "-C", tree, ".")


def make_cpio(tree: Path, image: Path) -> None:
    """As an initramfs is made."""
    names = "\n".join(sorted(str(one.relative_to(tree)) for one in tree.rglob("*"))).encode()
    image.write_bytes(run("cpio", "-o", "-H", "newc", "--quiet", folder=tree, told=names + b"\n"))


def make_zip(tree: Path, image: Path) -> None:
    """Deflated."""
    with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(tree.rglob("*")):
            if one.is_file():
                archive.write(one, one.relative_to(tree))


def make_fit(tree: Path, image: Path, *options: str) -> None:
    """mkimage with every file as an image of its own."""
    files = sorted(one for one in tree.rglob("*") if one.is_file())
    nodes = "".join(
        f'{one.name.replace(".", "-")} {{ data = /incbin/("{one}"); type = "kernel"; arch = "arm64"; os = "linux";'
        ' compression = "none"; load = <0x40000000>; entry = <0x40000000>; };'
        for one in files
    )
    source = image.with_suffix(".its")
    source.write_text(f'/dts-v1/; / {{ description = "x"; #address-cells = <1>; images {{ {nodes} }}; }};')
    run("mkimage", *options, "-f", source, image)


def make_dtb(tree: Path, image: Path) -> None:
    """dtc, each file a property."""
    files = sorted(one for one in tree.rglob("*") if one.is_file())
    body = "".join(f'{one.stem.replace(".", "-")} = /incbin/("{one}");' for one in files)
    source = image.with_suffix(".dts")
    source.write_text(f"/dts-v1/; / {{ chosen {{ {body} }}; }};")
    run("dtc", "-q", "-O", "dtb", "-o", image, source)


def evidence(key: p256.SoftKey, mpmr: bytes) -> bytes:
    """What a board sends as its Proof's outer envelope."""
    protected = encode(outer_headers(registry.ALG_MP_ES256, "raw"))
    payload = encode({"claims": noise(300)})
    signed = cose.sig_structure(protected, labels.AAD_EVIDENCE, payload)
    signature = key.sign_digest(mp.digest(signed, mpmr))
    return cose.join_sign1(protected, {registry.HEADER_MPMR: mpmr}, payload, signature)


FOLDERS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "ext4": _ext("ext4"),
    "ext4-1k-inline": _ext("ext4", "-b", "1024", "-O", "inline_data,64bit"),
    "ext2": _ext("ext2"),
    "fat12": make_fat,
    "fat16": lambda tree, image: make_fat(tree, image, "20M", "16"),
    "fat32": lambda tree, image: make_fat(tree, image, "40M", "32"),
    "squashfs-gzip": _squashfs("gzip"),
    "squashfs-lz4": _squashfs("lz4"),
    "squashfs-xz": _squashfs("xz"),
    "squashfs-zstd": _squashfs("zstd"),
    "tar": make_tar,
    "cpio": make_cpio,
    "zip": make_zip,
    "fit": make_fit,
    "fit-external": lambda tree, image: make_fit(tree, image, "-E"),
    "dtb": make_dtb,
}
"""What holds files, by the tool that makes it."""

STREAMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "gz-twice": lambda body: gzip.compress(body[: len(body) // 2]) + gzip.compress(body[len(body) // 2 :]),
    "xz": lzma.compress,
    "lzma": lambda body: lzma.compress(body, lzma.FORMAT_ALONE),
    "zst": zstandard.ZstdCompressor().compress,
    "zst-skippable": lambda body: b"".join(
        (zstandard.compress(body[:9]), b"\x50\x2a\x4d\x18\x03\0\0\0abc", zstandard.compress(body[9:]))
    ),
    "lz4": lambda body: run("lz4", "-c", told=body),
    "lz4-old": lambda body: run("lz4", "-l", "-c", told=body),
    "bz2": bz2.compress,
}
"""What packs one file."""


def make_disk(image: Path, partitions: Sequence[Path], label: str = "gpt", lead: bytes = b"") -> None:
    """sfdisk; `lead` lies between the table and the first partition, as a boot loader does."""
    start, script = 16 * 2048, f"label: {label}\n"
    places = []
    for one in partitions:
        sectors = -(-one.stat().st_size // 512)
        script += f"start={start}, size={sectors}, type={'L' if label == 'gpt' else '83'}\n"
        places.append((start * 512, one))
        start += (sectors + 2047) // 2048 * 2048
    run("truncate", "-s", str((start + 2048) * 512), image)
    run("sfdisk", "--quiet", image, told=script.encode())
    with image.open("r+b") as file:
        if lead:
            file.seek(33 * 1024)
            file.write(lead)
        for place, one in places:
            file.seek(place)
            file.write(one.read_bytes())


def walk(image: Path, sought: Sequence[Sought] = (SOUGHT,), seconds: float = 60.0) -> list[Finding]:
    """All findings, without a process of its own."""
    notes = Notebook()
    with image.open("rb") as file:
        Walk(sought, Budget(seconds), notes).look(Space(0, file, image.stat().st_size), image.name)
    return notes.findings


def walk_bytes(body: bytes, sought: Sequence[Sought] = (SOUGHT,), seconds: float = 60.0) -> list[Finding]:
    """The same of bytes, as a file named x."""
    notes = Notebook()
    Walk(sought, Budget(seconds), notes).look(Memory(0, body), "x")
    return notes.findings


def paths(findings: Sequence[Finding], kind: str) -> set[str]:
    """Where findings of a kind are."""
    return {one.path for one in findings if one.kind == kind}
