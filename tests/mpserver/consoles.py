"""U-Boot consoles with mfgprot output, as the sources print them and as people paste them."""

from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpwire import mp, p256
from mpwire.secret import Secret
from tests.vectors.silicon import A_DIGEST, A_KEY, A_MESSAGE, A_SIGNATURE, B_DIGEST, B_MESSAGE, B_SIGNATURE

OTHER: Final = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x07"))
P384_KEY: Final = (
    ec.derive_private_key(7, ec.SECP384R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
)


def pubk(key: bytes = A_KEY) -> str:
    """`mfgprot pubk` of the CAAM variant, upstream."""
    digits = key.hex().upper()
    return f"=> mfgprot pubk\n\nGenerating Manufacturing Protection Public Key\nPublic key:\n{digits}\n=> "


def sign(
    message: bytes = A_MESSAGE, digest: str = A_DIGEST, signature: bytes = A_SIGNATURE, size: str | None = None
) -> str:
    """`mfgprot sign` of the CAAM variant."""
    told = "".join(f"{one:02X} " for one in message)
    c, d = signature[:32].hex().upper(), signature[32:].hex().upper()
    return (
        f"mfgprot sign 0x40000000 {size or len(message)}\n\nSigning message with Manufacturing Protection Private Key\n"
        f"Message: {told}\nMessage Representative Digest(SHA-256):\n{digest.upper()}\nSignature:\nC:\n{c}\nd:\n{d}\n=> "
    )


def sign_by(key: p256.SoftKey, message: bytes, mpmr: bytes) -> str:
    """The same by any key under any MPMR."""
    return sign(message, mp.digest(message, mpmr).hex(), key.sign_digest(mp.digest(message, mpmr)))


def seco(key: bytes = P384_KEY, signed: bool = True) -> str:
    """Both commands of the SECO variant; the signature is filler, for nobody knows what the SECO hashes."""
    text = f"=> mfgprot pubk\n\nGenerating Manufacturing Protection Public Key\n\nPublic key:\n{key.hex().upper()}\n=> "
    half = "5A" * 48
    tail = (
        "mfgprot sign 0x80000000 4\n\nSigning message with SECO MP signature function\n\nMessage: DEADBEEF\n"
        f"\nSignature:\nc:\n{half}\nd:\n{half}\n=> "
    )
    return text + (tail if signed else "")


BOARD_A: Final = "U-Boot SPL 2021.04\nHit any key to stop autoboot:  0\n" + pubk() + sign()
"""Vector A as a console would show it."""
BOARD_B: Final = (
    "=> mfgprot pubk\n\nGenerating Manufacturing Protection Public Key\nPublic key:\n<removed>\n=> "
    + sign(B_MESSAGE, B_DIGEST, B_SIGNATURE)
)
"""Vector B: its key was taken out by who posted it."""


def wrap(text: str, width: int) -> str:
    """As a narrow terminal breaks long lines."""
    lines = []
    for line in text.split("\n"):
        lines += [line[at : at + width] for at in range(0, len(line), width)] or [""]
    return "\n".join(lines)


def stamp(text: str) -> str:
    """As minicom and its like put the time before each line."""
    return "\n".join(
        f"[2026-11-20 09:{at // 60:02d}:{at % 60:02d}.{at:03d}] {line}" for at, line in enumerate(text.split("\n"))
    )


PASTES: Final[Mapping[str, Callable[[str], bytes]]] = {
    "as printed": lambda text: text.encode(),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR CR LF": lambda text: text.replace("\n", "\r\r\n").encode(),
    "every line twice as far": lambda text: text.replace("\n", "\r\n\r\n").encode(),
    "in colours": lambda text: "\n".join(f"\x1b[1;32m{line}\x1b[0m\x1b[K" for line in text.split("\n")).encode(),
    "with a window title": lambda text: text.replace("=> ", "\x1b]0;ttyUSB0\x07u-boot=> ").encode(),
    "with bells and zeros": lambda text: text.replace("\n", "\x00\x07\n").encode(),
    "in 80 columns": lambda text: wrap(text, 80).encode(),
    "in 42 columns": lambda text: wrap(text, 42).encode(),
    "with times": lambda text: stamp(text).encode(),
    "with times in 80 columns": lambda text: stamp(wrap(text, 80)).encode(),
    "with seconds since boot": lambda text: "\n".join(
        f"[{at:8d}.{at:06d}] {line}" for at, line in enumerate(text.split("\n"))
    ).encode(),
    "with a port's name": lambda text: "\n".join(
        f"uart1 12:00:{at:02d} | {line}" for at, line in enumerate(text.split("\n"))
    ).encode(),
    "as PowerShell writes it": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "with a mark of UTF-8": lambda text: text.encode("utf-8-sig"),
    "in small letters": lambda text: "\n".join(
        line.lower() if len(line) > 60 and " " not in line else line for line in text.split("\n")
    ).encode(),
    "with noise before it": lambda text: b"\xff\xfe\xfd\x80\n" + text.encode(),
}
"""What a log goes through before somebody pastes it."""
