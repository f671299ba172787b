"""What the OEM decided, as the rows say it, against what the tree says: a quota, a key's origin, a job's state.

The row is what the server follows, the entry is what stands under a signed head. Both are written in one transaction.
"""

from collections.abc import Set

from mpissuer.booking import digest_of_object
from mpserver.errors import StoreDamaged
from mpserver.store import receipts
from mpserver.store.bundles import digest_rows
from mpserver.store.database import Connection

KINDS = ("product", "key", "job", "signer", "import", "bundle", receipts.KIND)
Decided = Set[tuple[str, bytes]]
"""Kind and digest of the entries of these kinds."""


def check_decisions(connection: Connection, decided: Decided) -> None:
    """Raises StoreDamaged naming the first product, key or job whose row is not what was entered."""
    for name, version, digest in connection.execute("SELECT name, version, digest FROM products"):
        if ("product", digest) not in decided:
            raise StoreDamaged(f"product {name} version {version} is not the one in the ledger")
    for key_id, *row in connection.execute(
        "SELECT key_id, kind, public_key, origin, mp_use, part, use FROM attester_keys"
    ):
        if not _holds(decided, "key", "key", key_id, *row):
            raise StoreDamaged(f"key {key_id.hex()} is not registered as the ledger says")
    for product, verdict, one, other in connection.execute("SELECT product, verdict, one, other FROM mp_comparisons"):
        if not _holds(decided, "key", "mp-compare", product, verdict, one, other):
            raise StoreDamaged(f"the comparison of MP keys of product {product} is not the one in the ledger")
    _check_imports(connection, decided)
    _check_hidden(connection, decided)
    _check_bundles(connection, decided)
    receipts.check_receipts(connection, frozenset(digest for kind, digest in decided if kind == receipts.KIND))
    for name, product, quota, state in connection.execute("SELECT name, product, quota, state FROM jobs"):
        if not _holds(decided, "job", "draft", name, product, quota):
            raise StoreDamaged(f"job {name}: product or quota ({quota}) is not the one in the ledger")
        if state not in _find_states(decided, name):
            raise StoreDamaged(f"job {name} is {state}, which the ledger does not say")


def _check_imports(connection: Connection, decided: Decided) -> None:
    """Both ways: a signer that nobody trusted lets strangers in, and a list forgotten can be played again."""
    left = {one for one in decided if one[0] in ("signer", "import")}
    for name, point, dismissed in connection.execute(
        "SELECT thumbprint, point, dismissed_at IS NOT NULL FROM import_signers"
    ):
        acts = [("signer", name, point), *([("dismissed", name)] if dismissed else [])]
        if not all(_holds(decided, "signer", *act) for act in acts):
            raise StoreDamaged(f"signer {name.hex()} of import lists is not trusted as the ledger says")
        left -= {("signer", digest_of_object(*act)) for act in acts}
    for row in connection.execute("SELECT signer, sequence, digest, records FROM import_lists"):
        if not _holds(decided, "import", "import", *row):
            raise StoreDamaged(f"import list {row[1]} of signer {row[0].hex()} is not the one in the ledger")
        left.discard(("import", digest_of_object("import", *row)))
    if left:
        raise StoreDamaged("the ledger has a signer of import lists, his dismissal, or a list taken, that no row has")


def _check_hidden(connection: Connection, decided: Decided) -> None:
    """Keys that are secrets, keys that were seen to sign, and who may make bundles later."""
    for mpk_id, part, origin, looks, destroyed in connection.execute(
        "SELECT mpk_id, part, origin, filter, destroyed_at IS NOT NULL FROM hidden_mp_keys"
    ):
        acts = [("mpk", mpk_id, part, origin, looks), *([("mpk-destroyed", mpk_id)] if destroyed else [])]
        if not all(_holds(decided, "key", *act) for act in acts):
            raise StoreDamaged(f"the secret MP key {mpk_id.hex()} is not kept as the ledger says")
    for mpk_id, how in connection.execute("SELECT mpk_id, how FROM burnt_mp_keys"):
        if not _holds(decided, "key", "burnt", mpk_id, how):
            raise StoreDamaged(f"MP key {mpk_id.hex()} was not seen to sign as the ledger says")
    for row in connection.execute("SELECT product, name, point, per_device, vault_name FROM update_authorities"):
        if not _holds(decided, "key", "authority", *row):
            raise StoreDamaged(f"update authority {row[1]} of product {row[0]} is not the one in the ledger")


def _check_bundles(connection: Connection, decided: Decided) -> None:
    """Both ways: a bundle that is forgotten was printed all the same."""
    left = {one for one in decided if one[0] == "bundle"}
    for digest, entered in digest_rows(connection):
        if ("bundle", entered) not in decided:
            raise StoreDamaged(f"bundle {digest.hex()} is not the one in the ledger")
        left.discard(("bundle", entered))
    if left:
        raise StoreDamaged("the ledger has a bundle that no row has")


def _find_states(decided: Decided, name: str) -> tuple[str, ...]:
    """`exhausted` is no decision: the last board brings it about."""
    if _holds(decided, "job", "ended", name):
        return ("ended",)
    return ("open", "exhausted") if _holds(decided, "job", "open", name) else ("draft",)


def _holds(decided: Decided, kind: str, *parts: object) -> bool:
    """A value that no entry can hold, like a fraction, is in none."""
    try:
        return (kind, digest_of_object(*parts)) in decided
    except (TypeError, ValueError):
        return False
