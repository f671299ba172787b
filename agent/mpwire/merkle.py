"""The ledger's hash tree (RFC 6962 section 2.1): hashes, proofs, and a right edge that grows in O(log n).

Verifiers follow RFC 9162 sections 2.1.3.2 and 2.1.4.2, which spell out the walks that RFC 6962 left to the reader.
Everything here works on leaf hashes; nothing stores anything.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from mpwire.errors import Unauthentic

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
"""Root of the tree without leaves."""


class Node(NamedTuple):
    """A perfect subtree: it covers leaves [place << level, (place + 1) << level) and never changes."""

    level: int
    place: int
    hash: bytes


ReadNode: TypeAlias = Callable[[int, int], bytes]
"""(level, place) to the hash of a perfect subtree that `Frontier.append` gave out earlier."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes; O(n), for audits."""
    frontier = Frontier()
    for leaf in leaves:
        frontier, _ = frontier.append(leaf)
    return frontier.root()


class Frontier(NamedTuple):
    """The right edge of a tree: one hash for each set bit of its size, largest subtree first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> tuple["Frontier", list[Node]]:
        """The edge with one leaf more, and the perfect subtrees this leaf completed, for the store to keep."""
        made = [Node(0, self.size, leaf)]
        peaks, size = list(self.peaks), self.size
        while size & 1:
            right = made[-1]
            made.append(Node(right.level + 1, right.place >> 1, node_hash(peaks.pop(), right.hash)))
            size >>= 1
        return Frontier(self.size + 1, (*peaks, made[-1].hash)), made

    def root(self) -> bytes:
        """The tree's root now."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT


def load_frontier(size: int, read_node: ReadNode) -> Frontier:
    """The edge of a stored tree of `size` leaves."""
    return Frontier(size, tuple(_cover(0, size, read_node)))


def inclusion_path(index: int, size: int, read_node: ReadNode) -> list[bytes]:
    """PATH(index, D[size]) (RFC 6962 section 2.1.1), leaf's sibling first. 0 <= index < size, else ValueError."""
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_hash(middle, high, read_node))
            high = middle
        else:
            path.append(_range_hash(low, middle, read_node))
            low = middle
    return path[::-1]


def consistency_path(first: int, second: int, read_node: ReadNode) -> list[bytes]:
    """PROOF(first, D[second]) (RFC 6962 section 2.1.2). 0 < first <= second, else ValueError."""
    if not 0 < first <= second:
        raise ValueError("no such earlier tree")
    path: list[bytes] = []
    low, high = 0, second
    while high != first:
        middle = low + _split(high - low)
        if first <= middle:
            path.append(_range_hash(middle, high, read_node))
            high = middle
        else:
            path.append(_range_hash(low, middle, read_node))
            low = middle
    if low:  # the old tree's last subtree is not the old tree itself, so the verifier has to be told
        path.append(_range_hash(low, high, read_node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raises Unauthentic unless `path` leads from the leaf hash at `index` to the root of `size` leaves."""
    if not 0 <= index < size or not _are_hashes(path):
        raise Unauthentic("merkle-inclusion")
    place, last, made = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Unauthentic("merkle-inclusion")
        if place & 1 or place == last:
            made = node_hash(sibling, made)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or made != root:
        raise Unauthentic("merkle-inclusion")


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> None:
    """Raises Unauthentic unless the tree of `second` leaves begins with that of `first`; 0 < first <= second."""
    if not 0 < first <= second or not _are_hashes(path) or (first == second) != (not path):
        raise Unauthentic("merkle-consistency")
    if first == second:
        if first_root != second_root:
            raise Unauthentic("merkle-consistency")
        return
    steps = list(path) if first & (first - 1) else [first_root, *path]
    if _walk(first - 1, second - 1, steps) != (first_root, second_root):
        raise Unauthentic("merkle-consistency")


def _walk(place: int, last: int, steps: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots as a consistency path implies them (RFC 9162 section 2.1.4.2)."""
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise Unauthentic("merkle-consistency")
        if place & 1 or place == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, step)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise Unauthentic("merkle-consistency")
    return old, new


def _are_hashes(path: Sequence[bytes]) -> bool:
    return all(len(step) == HASH_BYTES for step in path)


def _split(count: int) -> int:
    """Largest power of two below `count`, which is 2 or more."""
    return 1 << (count - 1).bit_length() - 1


def _cover(low: int, high: int, read_node: ReadNode) -> list[bytes]:
    """The perfect subtrees of [low, high), left to right; `low` is a multiple of a power of two >= high - low."""
    hashes = []
    while low < high:
        level = (high - low).bit_length() - 1
        hashes.append(read_node(level, low >> level))
        low += 1 << level
    return hashes


def _range_hash(low: int, high: int, read_node: ReadNode) -> bytes:
    return _fold(_cover(low, high, read_node))


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Root over subtrees that shrink to the right."""
    made = peaks[-1]
    for left in reversed(peaks[:-1]):
        made = node_hash(left, made)
    return made
