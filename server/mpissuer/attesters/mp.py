"""An i.MX8's manufacturing-protection key: a class key, registered by the OEM (docs/wire.md section 9)."""

from typing import Final

from mpissuer.checks import require, step
from mpissuer.endorsement import Endorsed
from mpissuer.heard import Heard
from mpissuer.ports import Catalogue
from mpwire import mp
from mpwire.errors import Malformed
from mpwire.evidence import read_mpmr
from mpwire.messages.plain import Material
from mpwire.registry import ALG_MP_ES256

ALG: Final = ALG_MP_ES256
NEEDED: Final = frozenset({"profile"})
ALLOWED: Final = NEEDED


def check_material(one: Material) -> None:
    """2.6: the key itself stays on the board, so there is only the size of its id to look at. Raises Malformed."""
    if len(one.attester_id) != 32:
        raise Malformed("an mp attester-id has 32 bytes")


def check_mp(heard: Heard, message: bytes, catalogue: Catalogue) -> Endorsed:
    """3.16 to 3.18. Raises Refused."""
    key_id, product = heard.material.attester_id, heard.product
    key = catalogue.registered_key(key_id)
    known = key is not None and key.kind == "mp" and key.public_key is not None and key_id in product.mp_keys
    require(known, "attester-key", f"MP key {key_id.hex()[:16]} is not registered for {product.name}")
    assert key is not None and key.public_key is not None  # known
    with step("attester-signature"):
        mpmr = read_mpmr(heard.outer)
        mp.verify_mp(key.public_key, message, mpmr, heard.outer.signature)
    require(mpmr in product.mpmrs, "mpmr", f"MPMR {mpmr.hex()} is not on the allow-list")
    return Endorsed("mp", key_id, key.origin, key.mp_use)
