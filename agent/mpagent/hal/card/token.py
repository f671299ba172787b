"""One card for the length of a run: the same one at every use, and its PIN given only where that cannot block it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpagent.errors import ConfigWrong, HardwareGone
from mpagent.hal.card.pin import Pin
from mpagent.hal.card.piv import Applet, Slot
from mpagent.hal.card.reader import Reader
from mpwire import p256
from mpwire.errors import Unauthentic
from mpwire.secret import Secret

_LAST_TRY: Final = 1
_HOLDS: Final = 2


class Token:
    """The card that is in the reader at the first use. Another one later is found before it hears the PIN."""

    def __init__(self, reader: Reader, pin: Pin) -> None:
        self._reader = reader
        self._pin = pin
        self._certificates: dict[Slot, bytes] = {}

    def certificate(self, slot: Slot) -> bytes:
        """DER; read from the card at the first call."""
        if slot not in self._certificates:
            with self._recognised() as applet:
                if slot not in self._certificates:
                    self._certificates[slot] = applet.read_certificate(slot)
        return self._certificates[slot]

    def point(self, slot: Slot) -> bytes:
        """The public key of that certificate, 65 bytes. Raises HardwareGone unless it is one of P-256."""
        return _read_point(self.certificate(slot), slot)

    def sign(self, slot: Slot, digest: bytes) -> bytes:
        """r || s over a SHA-256 digest, verified with the certificate's key before anybody sees it."""
        point = self.point(slot)
        with self._unlocked() as applet:
            signature = applet.sign(slot, digest)
        try:
            p256.verify_digest(point, digest, signature)
        except Unauthentic:
            raise _other_key(slot) from None
        return signature

    def agree(self, slot: Slot, peer: bytes) -> Secret:
        """X of the Diffie-Hellman with `peer`, 32 bytes. Raises Malformed when that point is not on the curve."""
        # Checked here and not left to the card: one that takes any point gives away its key piece by piece.
        p256.load_point(peer)
        with self._unlocked() as applet:
            return applet.exponentiate(slot, peer)

    def prove_agreement(self, slot: Slot) -> None:
        """Find out that the key in this slot is the certificate's: nothing in a shared secret would show it."""
        ours = p256.SoftKey.generate()
        if self.agree(slot, ours.public_key()) != ours.ecdh(self.point(slot)):
            raise _other_key(slot)

    def count_tries(self) -> int:
        """How many wrong PINs the card still takes, without giving one."""
        with self._locked() as (_, tries):
            return tries

    @contextmanager
    def _recognised(self) -> Iterator[Applet]:
        """Raises HardwareGone when this is not the card of the first use, by its certificate of 9A. Gives no PIN."""
        with self._reader.hold() as transmit:
            applet = Applet(transmit)
            applet.select()
            shown = applet.read_certificate(Slot.AUTHENTICATION)
            if self._certificates.setdefault(Slot.AUTHENTICATION, shown) != shown:
                raise HardwareGone(
                    "another card is in the reader than the one this run began with",
                    advice="put the first card back, or start anew with this one",
                )
            yield applet

    @contextmanager
    def _locked(self) -> Iterator[tuple[Applet, int]]:
        """The application before the PIN, and the tries left.

        Where the PIN counts as given already, another program gave it: letting go of the card once ends that.
        """
        for _ in range(_HOLDS):
            with self._recognised() as applet:
                tries = applet.count_tries()
                if tries is not None:
                    yield applet, tries
                    return
        raise HardwareGone("the card takes its PIN for given, even after a reset", advice="use another card")

    @contextmanager
    def _unlocked(self) -> Iterator[Applet]:
        """With the PIN given: 9C wants it right before each use (SP 800-73-4 Part 1 Table 4b)."""
        with self._locked() as (applet, tries):
            self._give_pin(applet, tries)
            yield applet

    def _give_pin(self, applet: Applet, tries: int) -> None:
        """One try at most in a run, and never the last. Raises ConfigWrong when it is wrong: systemd then stops."""
        path = self._pin.path
        if self._pin.refused:
            raise ConfigWrong(f"the card refused the PIN of {path} in this run; it is not given again")
        padded = self._pin.padded()
        if tries == 0:
            raise HardwareGone("the card's PIN is blocked", advice="let its holder unblock it with the PUK")
        if tries == _LAST_TRY:
            raise HardwareGone(
                "the card's PIN has one try left, and mpagent does not spend it",
                advice=f"compare {path} with the card's holder, who then gives the PIN once by hand: "
                "pkcs15-tool --verify-pin; that restores the tries",
            )
        left = applet.verify(padded)
        if left is not None:
            self._pin.refused = True
            raise ConfigWrong(f"{path}: the card says this PIN is wrong; it has {left} of its tries left")


def _read_point(der: bytes, slot: Slot) -> bytes:
    """The P-256 point of a certificate."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_p256(slot) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _no_p256(slot)
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _no_p256(slot: Slot) -> HardwareGone:
    return HardwareGone(
        f"the card's certificate of {slot.title} is not one of a P-256 key",
        advice="let the card's issuer make an ECC P-256 key in that slot",
    )


def _other_key(slot: Slot) -> HardwareGone:
    return HardwareGone(
        f"the key in slot {slot.title} is not the one that its certificate names",
        advice="let the card's issuer certify the key that is in the slot; a faulty card is replaced",
    )
