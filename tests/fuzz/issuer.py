"""An issuer's ports in the fixed world of tests/vectors: what a stranger's bytes must never reach raises a plain error.

`derive` is free here as it is on every replica; signing, wrapping and certifying are not (promise P5).
"""

from collections.abc import Mapping
from typing import Final, NoReturn

from mpissuer.issuer import Issuer
from mpissuer.policy import Product, read_product
from mpissuer.ports import GrantRow, RegisteredKey
from mpwire import mp, tpm2
from mpwire.secret import Secret
from tests.vectors import cards, exchange, rsa, world

PRODUCT_FILE: Final = f"""
name = "{world.PRODUCT}"
realm = "lab"
attesters = ["mp", "tpm", "card", "optee"]
grades = ["S", "K", "L"]
life_cycle = "closed"
profile = "raw"
mp_use = "sign"
mp_keys = ["{mp.key_id(world.MP.public_key()).hex()}"]
mpmr = ["optee", "zero"]
srk_hashes = ["{exchange.SRK_HASH.hex()}"]
eks = ["{tpm2.make_name(world.EK_PUBLIC).hex()}"]
ek_roots = []
card_roots = ['''{cards.ROOT_PEM}''']
optee_keys = ["{exchange.attester_id("optee").hex()}"]
optee_measurements = ["{rsa.MEASUREMENT.hex()}"]
minimum_software = "1.2"

[[slot]]
name = "disk-key"
kind = "local"
escrow = "{world.ESCROW.public_key().hex()}"

[[slot]]
name = "api-key"
kind = "random"
length = 32

[[slot]]
name = "update-ca"
kind = "static"
destination = "plain"
value_hex = "00ff"
version = 2

[[slot]]
name = "idevid"
kind = "certificate"
destination = "credential"
"""
PRODUCT: Final = read_product(PRODUCT_FILE)


class Reached(Exception):
    """A stranger's bytes got to something scarce or durable. No MpError: nobody may catch it."""


class FreeAuthority:
    """Derives, and does nothing else."""

    realm = world.REALM

    def __init__(self, root: bytes = b"") -> None:
        self._root = root

    def derive(self, label: bytes, context: bytes) -> Secret:
        """mpissuer.ports.Authority."""
        return Secret(world.derive(label, self._root + context))

    def __getattr__(self, verb: str) -> NoReturn:
        raise Reached(f"Authority.{verb}")


class FixedCatalogue:
    """One product, its MP class key, one attestation key, no open job."""

    def __init__(self, product: Product = PRODUCT) -> None:
        self._product = product
        point = world.MP.public_key()
        known = (
            RegisteredKey(mp.key_id(point), "mp", point, "simulated"),
            RegisteredKey(exchange.attester_id("optee"), "optee", rsa.OPTEE.public, "simulated"),
        )
        self.keys = {one.key_id: one for one in known}

    def product(self, name: str) -> Product | None:
        """mpissuer.ports.Catalogue."""
        return self._product if name == self._product.name else None

    def registered_key(self, key_id: bytes) -> RegisteredKey | None:
        """mpissuer.ports.Catalogue."""
        return self.keys.get(key_id)

    def __getattr__(self, verb: str) -> NoReturn:
        raise Reached(f"Catalogue.{verb}")


class ForgetfulLedger:
    """Knows the grants it was given and no answer; whatever would write raises."""

    def __init__(self, grants: Mapping[bytes, GrantRow] | None = None) -> None:
        self._grants = dict(grants or {})

    def recall(self, _: bytes) -> None:
        """mpissuer.ports.Ledger."""

    def find_grant(self, digest: bytes) -> GrantRow | None:
        """mpissuer.ports.Ledger."""
        return self._grants.get(digest)

    def __getattr__(self, verb: str) -> NoReturn:
        raise Reached(f"Ledger.{verb}")


class FixedClock:
    """The vectors' present."""

    def now(self) -> int:
        """mpissuer.ports.Clock."""
        return world.NOW


def make_issuer(grants: Mapping[bytes, GrantRow] | None = None) -> Issuer:
    """Its randomness repeats: what it says is thrown away."""
    return Issuer(FreeAuthority(), FixedCatalogue(), ForgetfulLedger(grants), FixedClock(), lambda size: b"r" * size)  # type: ignore[arg-type]
