"""The user PIN of a token: where it comes from, and when it must not be tried."""

from pathlib import Path
from typing import Final

from mpagent.errors import ConfigWrong, HardwareGone
from mpwire.secret import Secret

PIN_MAX_BYTES: Final = 255
"""Longest PIN taken, in bytes: OP-TEE's TA takes 128 (ta/pkcs11/src/pkcs11_token.h), SoftHSM2 255."""

PIN_SET: Final = 0x00000008
"""CKF_USER_PIN_INITIALIZED; the bits are those of CK_TOKEN_INFO (PKCS#11 section 3.2)."""
INITIALIZED: Final = 0x00000400
COUNT_LOW: Final = 0x00010000
FINAL_TRY: Final = 0x00020000
LOCKED: Final = 0x00040000


def check_tries(flags: int, token: str) -> None:
    """Raises HardwareGone unless a wrong PIN would still leave a try: the last one is never spent here.

    A person may know the right PIN when the file does not; a locked token is a board for the scrap.
    """
    if not flags & PIN_SET:
        raise HardwareGone(
            f"the PKCS#11 token {token!r} has no user PIN yet",
            advice="set one as its security officer (C_InitPIN), then start again",
        )
    if flags & LOCKED:
        raise HardwareGone(
            f"the user PIN of the PKCS#11 token {token!r} is locked",
            advice="its security officer sets a new one",
        )
    if flags & FINAL_TRY:
        raise HardwareGone(
            f"the PKCS#11 token {token!r} has one PIN try left, which is not spent here",
            advice="log in once by hand with the right PIN, which gives the tries back",
        )


def describe_tries(flags: int) -> str:
    """What the token says of its tries after a wrong PIN."""
    if flags & LOCKED:
        return "the PIN is locked now"
    if flags & FINAL_TRY:
        return "one try is left, and the next start will not spend it"
    if flags & COUNT_LOW:
        return "tries are running low"
    return "the token does not say how many tries are left"


def read_pin(pin_file: Path) -> Secret:
    """The PIN in this file, without one trailing newline. Raises ConfigWrong."""
    try:
        with open(pin_file, "rb") as file:
            content = file.read(PIN_MAX_BYTES + 2)
    except OSError as error:
        raise ConfigWrong(f"pin_file {pin_file} cannot be read: {error.strerror}") from None
    pin = content.removesuffix(b"\n")
    if not 1 <= len(pin) <= PIN_MAX_BYTES:
        raise ConfigWrong(f"pin_file {pin_file} does not hold a PIN of 1 to {PIN_MAX_BYTES} bytes")
    try:
        pin.decode()
    except UnicodeDecodeError:
        raise ConfigWrong(f"pin_file {pin_file} does not hold a PIN in UTF-8, which PKCS#11 wants") from None
    return Secret(pin)
