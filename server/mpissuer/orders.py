"""What verified messages ask of the ledger: all a booking needs, with nothing left to verify."""

from collections.abc import Mapping
from typing import NamedTuple

from mpissuer.policy import Product
from mpissuer.ports import GrantRow


class GrantOrder(NamedTuple):
    """A Proof that passed every check; the board may have a Grant if the books allow it."""

    product: Product
    ueid: bytes
    attester: str
    grade: str
    hardware_ids: Mapping[str, bytes]
    sign_key: bytes
    kem_key: bytes
    certificate_keys: Mapping[str, bytes]
    """65-byte point by certificate slot."""
    hello_hash: bytes
    nonce: bytes
    proof_digest: bytes
    evidence_hash: bytes


class ReceiptOrder(NamedTuple):
    """A Receipt signed by the device its Grant went to, saying what that Grant asks."""

    raw: bytes
    """As said, with what it escrows: the books keep it as the board's certificate of conformance."""
    digest: bytes
    row: GrantRow
    is_final: bool = False
    """Said by the production image, after the Closed of the sealed one."""


Order = GrantOrder | ReceiptOrder
