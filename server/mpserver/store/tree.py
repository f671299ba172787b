"""The RFC 6962 tree in the store: the edge it grows from, what a batch adds, and the signed head over it."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mpissuer.ports import Authority
from mpserver.errors import StoreDamaged
from mpserver.store.database import Connection
from mpwire import labels
from mpwire.merkle import EMPTY_ROOT, Frontier, Node, inclusion_path, leaf_hash, load_frontier
from mpwire.messages.issuer import HEAD, Head
from mpwire.trust import write_signed

HEAD_ROLE: Final = "head"


def place_of(level: int, index: int) -> int:
    """Where a perfect subtree lies in an in-order walk (schema.sql, table nodes)."""
    return (index << (level + 1)) + (1 << level) - 1


def node_reader(connection: Connection) -> Callable[[int, int], bytes]:
    """mpwire.merkle.ReadNode over the table; raises StoreDamaged for a node that must be there and is not."""

    def read_node(level: int, index: int) -> bytes:
        row = connection.execute("SELECT hash FROM nodes WHERE place = ?", (place_of(level, index),)).fetchone()
        if row is None:
            raise StoreDamaged(f"the ledger tree lacks node {index} of level {level}")
        found: bytes = row[0]
        return found

    return read_node


def read_last_head(connection: Connection) -> tuple[int, bytes]:
    """Size and root of the newest head; an empty ledger has size 0."""
    row = connection.execute("SELECT size, root FROM heads ORDER BY size DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, EMPTY_ROOT)


def load_edge(connection: Connection) -> Frontier:
    """The right edge of the tree under the newest head. Raises StoreDamaged where nodes and head disagree."""
    size, root = read_last_head(connection)
    edge = load_frontier(size, node_reader(connection))
    if edge.root() != root:
        raise StoreDamaged(f"the newest ledger head ({size} entries) does not match the tree")
    return edge


class Growth(NamedTuple):
    """What one batch adds to the tree, before and after it is stored."""

    edge: Frontier
    head: bytes
    """Signed; b"" where nothing was appended."""
    nodes: dict[tuple[int, int], bytes]
    """Old peaks and new subtrees: all that an inclusion proof of a new leaf needs."""

    def path(self, index: int) -> list[bytes]:
        """Inclusion proof of a leaf of this batch under this head."""
        return inclusion_path(index, self.edge.size, lambda level, place: self.nodes[level, place])


def grow(connection: Connection, edge: Frontier, entries: Sequence[bytes], authority: Authority, now: int) -> Growth:
    """Append entries behind `edge` and sign one head over all. The caller commits. NotNow when the key is gone."""
    nodes, made = dict(_peaks(edge)), list[Node]()
    first = edge.size
    for entry in entries:
        edge, new = edge.append(leaf_hash(entry))
        made += new
    if not entries:
        return Growth(edge, b"", nodes)
    nodes.update(((one.level, one.place), one.hash) for one in made)
    connection.executemany("INSERT INTO entries (idx, body) VALUES (?, ?)", list(enumerate(entries, first)))
    connection.executemany(
        "INSERT INTO nodes (place, hash) VALUES (?, ?)", [(place_of(one.level, one.place), one.hash) for one in made]
    )
    root = edge.root()
    head = sign_head(Head(edge.size, root, now, authority.realm), authority)
    connection.execute("INSERT INTO heads (size, root, signed) VALUES (?, ?, ?)", (edge.size, root, head))
    return Growth(edge, head, nodes)


def sign_head(head: Head, authority: Authority) -> bytes:
    """COSE_Sign1 by the head key (docs/wire.md 5.3)."""
    return write_signed(
        HEAD.encode(head),
        labels.TYP_HEAD,
        labels.AAD_HEAD,
        authority.chain(HEAD_ROLE),
        lambda message: authority.sign(HEAD_ROLE, message),
    )


def _peaks(edge: Frontier) -> list[tuple[tuple[int, int], bytes]]:
    peaks, low = [], 0
    levels = [level for level in range(edge.size.bit_length() - 1, -1, -1) if edge.size >> level & 1]
    for level, peak in zip(levels, edge.peaks, strict=True):
        peaks.append(((level, low >> level), peak))
        low += 1 << level
    return peaks
