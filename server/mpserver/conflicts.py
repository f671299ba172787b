"""What does not fit together among the receipts of boards without a line, in words for whoever has to look.

Names of conflicts are those of docs/operate.md.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from mpserver.store.bundles import BundleRow
from mpserver.store.database import Connection
from mpserver.store.receipts import Clash, Surplus, find_clashes, find_surplus, list_faulty
from mpwire.cose import thumbprint

SAID: Final[Mapping[str, str]] = {
    "bundle": "it names another product, job, authority or version than the bundle it is for",
    "uid": "the fuse UID of this board is not on the bundle's list",
    "slots": "a slot of the bundle is missing on the board, or has another version",
    "check-value": "a slot does not hold what the bundle brought",
    "life-cycle": "the product wants closed parts, and this board did not prove that it is one",
}
"""What is wrong with a receipt by itself."""
SHORT: Final = 16
"""Digits of a name in a sentence: enough to find the rest by."""


class Conflict(NamedTuple):
    """One thing to look at."""

    kind: str
    boards: tuple[tuple[bytes, bytes | None], ...]
    """ueid and, where one is known, device key."""
    bundle: bytes | None
    said: str


def find_conflicts(connection: Connection, bundles: Mapping[bytes, BundleRow]) -> Iterator[Conflict]:
    """Among the receipts of these bundles; a clash with any other board counts too."""
    boards = set[tuple[bytes, bytes]]()
    for digest in bundles:
        boards |= set(
            connection.execute("SELECT DISTINCT ueid, sign_key FROM bundle_receipts WHERE bundle = ?", (digest,))
        )
    for row in list_faulty(connection):
        for kind in row.faults.split() if row.bundle in bundles else ():
            yield Conflict(kind, ((row.ueid, row.sign_key),), row.bundle, SAID[kind])
    yield from _say_clashes(find_clashes(connection), boards)
    for surplus in find_surplus(connection, bundles.values()):
        yield _say_surplus(surplus)


def _say_clashes(clashes: Iterator[Clash], boards: Collection[tuple[bytes, bytes]]) -> Iterator[Conflict]:
    """Boards that clash in several ids clash once."""
    shared: dict[tuple[tuple[bytes, bytes], ...], list[str]] = defaultdict(list)
    for clash in clashes:
        if any(one in boards for one in clash.boards):
            shared[clash.boards].append(f"{clash.kind} {clash.id.hex()[: 2 * SHORT]}")
    for both, ids in shared.items():
        names = ", ".join(f"{ueid.hex()[:SHORT]} with key {thumbprint(key).hex()[:SHORT]}" for ueid, key in both)
        yield Conflict("clone", both, None, f"{len(both)} boards show one {' and one '.join(ids)}: {names}")


def _say_surplus(surplus: Surplus) -> Conflict:
    whose = f"job {surplus.job}" if surplus.bundle is None else f"bundle {surplus.bundle.hex()[:SHORT]}"
    said = f"board {surplus.place} of {whose}, which is for {surplus.ordered}; boards are counted as their files came"
    return Conflict("over-quantity", ((surplus.ueid, surplus.sign_key),), surplus.bundle, said)
