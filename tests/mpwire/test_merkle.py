"""The ledger's tree against RFC 6962's definition, for every size up to 64, and against forged proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire import merkle
from mpwire.errors import Unauthentic
from mpwire.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion

SIZES = 64
LEAVES = [leaf_hash(b"entry %d" % number) for number in range(SIZES)]

# The eight entries and roots of the Certificate Transparency project's merkle tree tests.
CT_ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def root_of(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, written as it stands there."""
    if len(leaves) == 0:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = split_of(len(leaves))
    return merkle.node_hash(root_of(leaves[:split]), root_of(leaves[split:]))


def split_of(count: int) -> int:
    split = 1
    while split * 2 < count:
        split *= 2
    return split


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = split_of(len(leaves))
    if index < split:
        return [*path_of(index, leaves[:split]), root_of(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), root_of(leaves[:split])]


def proof_of(first: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if first == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = split_of(len(leaves))
    if first <= split:
        return [*proof_of(first, leaves[:split], whole), root_of(leaves[split:])]
    return [*proof_of(first - split, leaves[split:], False), root_of(leaves[:split])]


class Store:
    """Perfect subtrees as a ledger keeps them: each written once."""

    def __init__(self, count: int = SIZES) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.edges = [Frontier()]
        for leaf in LEAVES[:count]:
            frontier, made = self.edges[-1].append(leaf)
            self.edges.append(frontier)
            for node in made:
                assert (node.level, node.place) not in self.nodes
                self.nodes[node.level, node.place] = node.hash

    def read(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


STORE = Store()


def test_roots_of_certificate_transparency() -> None:
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in CT_ENTRIES]
    assert [merkle.tree_root(leaves[: size + 1]).hex() for size in range(8)] == CT_ROOTS
    assert merkle.tree_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(SIZES + 1))
def test_edge_and_root_are_the_definition(size: int) -> None:
    assert STORE.edges[size].root() == merkle.tree_root(LEAVES[:size]) == root_of(LEAVES[:size])
    assert merkle.load_frontier(size, STORE.read) == STORE.edges[size]
    assert len(STORE.edges[size].peaks) == size.bit_count()


@pytest.mark.parametrize("size", range(1, SIZES + 1))
def test_inclusion_paths_are_the_definition_and_verify(size: int) -> None:
    root = STORE.edges[size].root()
    for index in range(size):
        path = merkle.inclusion_path(index, size, STORE.read)
        assert path == path_of(index, LEAVES[:size])
        verify_inclusion(LEAVES[index], index, size, path, root)


@pytest.mark.parametrize("size", range(1, SIZES + 1))
def test_consistency_paths_are_the_definition_and_verify(size: int) -> None:
    for first in range(1, size + 1):
        path = merkle.consistency_path(first, size, STORE.read)
        assert path == proof_of(first, LEAVES[:size], True)
        verify_consistency(first, size, STORE.edges[first].root(), STORE.edges[size].root(), path)


@pytest.mark.parametrize("size", range(1, 20))
def test_forged_inclusion_is_refused(size: int) -> None:
    """T Ledger without the receipt: no other place, leaf, size, root or path proves it in."""
    root = STORE.edges[size].root()
    for index in range(size):
        path = merkle.inclusion_path(index, size, STORE.read)
        forged = [(leaf_hash(b"other"), index, size, path, root), (LEAVES[index], index, size, path, bytes(32))]
        forged += [(LEAVES[index], index, size, [*path, bytes(32)], root), (LEAVES[index], size, size, path, root)]
        forged += [(LEAVES[index], -1, size, path, root), (LEAVES[index], index, 0, path, root)]
        forged += [(LEAVES[index], other, size, path, root) for other in range(size) if other != index]
        forged += [(LEAVES[index], index, size, path[:cut], root) for cut in range(len(path))]
        forged += [
            (LEAVES[index], index, size, [*path[:at], bytes(32), *path[at + 1 :]], root) for at in range(len(path))
        ]
        forged += [(LEAVES[index], index, size, [b"", *path[1:]], root)] if path else []
        for attempt in forged:
            with pytest.raises(Unauthentic, match="merkle-inclusion"):
                verify_inclusion(*attempt)


@pytest.mark.parametrize("size", range(2, 20))
def test_rewritten_history_is_refused(size: int) -> None:
    """T Rewritten ledger: a head over changed earlier entries has no consistency path."""
    new = STORE.edges[size].root()
    for first in range(1, size):
        path, old = merkle.consistency_path(first, size, STORE.read), STORE.edges[first].root()
        forged = [(first, size, leaf_hash(b"x"), new, path), (first, size, old, leaf_hash(b"x"), path)]
        forged += [(first, size, old, new, path[:cut]) for cut in range(len(path))]
        forged += [
            (first, size, old, new, [*path, bytes(32)]),
            (0, size, old, new, path),
            (size, first, new, old, path),
        ]
        forged += [(first, size, old, new, [*path[:at], bytes(32), *path[at + 1 :]]) for at in range(len(path))]
        for attempt in forged:
            with pytest.raises(Unauthentic, match="merkle-consistency"):
                verify_consistency(*attempt)


def test_same_size_has_the_same_root_and_an_empty_path() -> None:
    root = STORE.edges[5].root()
    verify_consistency(5, 5, root, root, [])
    for attempt in ((root, bytes(32), []), (root, root, [root])):
        with pytest.raises(Unauthentic):
            verify_consistency(5, 5, *attempt)


def test_leaf_never_passes_for_a_node() -> None:
    """T Second preimage: without the prefixes an inner node could be shown as an entry."""
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != merkle.node_hash(left, right)


def test_paths_of_leaves_that_do_not_exist_are_our_own_bug() -> None:
    for index, size in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(ValueError):
            merkle.inclusion_path(index, size, STORE.read)
    for first, second in ((0, 3), (4, 3)):
        with pytest.raises(ValueError):
            merkle.consistency_path(first, second, STORE.read)


@given(st.integers(-2, 2**70), st.integers(-2, 2**70), st.lists(st.binary(min_size=31, max_size=33), max_size=80))
def test_garbage_proofs_are_only_unauthentic(first: int, second: int, path: list[bytes]) -> None:
    with pytest.raises(Unauthentic):
        verify_inclusion(LEAVES[0], first, second, path, LEAVES[1])
    with pytest.raises(Unauthentic):
        verify_consistency(first, second, LEAVES[0], LEAVES[1], path)
