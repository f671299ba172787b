"""Boards without a line, as their receipts tell of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mpserver.errors import NeedsPerson
from mpserver.store.bundles import BundleRow, find_bundle
from mpserver.store.database import Connection
from mpserver.store.receipts import ReceiptRow, count_boards, find_missing, list_receipts, read_signed
from mpwire.cose import thumbprint

OFFLINE: Final = "offline"
"""State of such a board in lists: no server granted it anything."""


def describe_bundles(connection: Connection, bundles: Iterable[BundleRow]) -> list[dict[str, Any]]:
    """How far each was carried out."""
    return [
        {
            "bundle": row.digest.hex(),
            "product": row.product,
            "job": row.job,
            "authority": row.authority,
            "version": row.version,
            "quantity": row.quantity,
            "boards": count_boards(connection, row.digest),
            "listed": None if row.uids is None else len(row.uids),
            "missing": [uid.hex() for uid in find_missing(connection, row)],
        }
        for row in bundles
    ]


def list_boards(connection: Connection, bundles: Mapping[bytes, BundleRow]) -> list[dict[str, Any]]:
    """Boards that took one of these bundles, in the order of their first receipts."""
    boards: dict[bytes, dict[str, Any]] = {}
    for ueid, key, digest in connection.execute("SELECT ueid, sign_key, bundle FROM bundle_receipts ORDER BY rowid"):
        if digest not in bundles:
            continue
        bundle = bundles[digest]
        board = boards.setdefault(
            ueid, {"ueid": ueid.hex(), "product": bundle.product, "job": bundle.job, "versions": {}, "keys": []}
        )
        versions = board["versions"]
        versions[bundle.authority] = max(bundle.version, versions.get(bundle.authority, 0))
        if (name := thumbprint(key).hex()) not in board["keys"]:
            board["keys"].append(name)
    return list(boards.values())


def list_names(connection: Connection) -> list[bytes]:
    """ueid of every such board, in the order of their first receipts."""
    rows = connection.execute("SELECT ueid FROM bundle_receipts GROUP BY ueid ORDER BY min(rowid)").fetchall()
    return [ueid for (ueid,) in rows]


def describe_board(connection: Connection, ueid: bytes) -> dict[str, Any]:
    """All its receipts, the newest last."""
    rows = list(list_receipts(connection, ueid))
    bundles = {row.bundle: find_bundle(connection, row.bundle) for row, _ in rows}
    first = bundles[rows[0][0].bundle]
    assert first is not None  # the row refers to it
    newest = read_signed(rows[-1][0].signed)
    return {
        "ueid": ueid.hex(),
        "product": first.product,
        "job": first.job,
        "state": OFFLINE,
        "hardware_ids": {kind: one.hex() for kind, one in newest.hardware_ids.items()},
        "keys": sorted({thumbprint(row.sign_key).hex() for row, _ in rows}),
        "bundle_receipts": describe_receipts(connection, ueid),
    }


def describe_receipts(connection: Connection, ueid: bytes) -> list[dict[str, Any]]:
    """Of one board, in the order they came."""
    return [{**_describe_receipt(row), "taken_at": at} for row, at in list_receipts(connection, ueid)]


def _describe_receipt(row: ReceiptRow) -> dict[str, Any]:
    said = read_signed(row.signed)
    return {
        "digest": row.digest.hex(),
        "bundle": row.bundle.hex(),
        "authority": said.authority,
        "version": said.version,
        "slots": {slot.name: slot.version for slot in said.slots},
        "skipped": list(said.skipped),
        "closed_proof": said.closed_proof,
        "life_cycle": said.life_cycle,
        "rollback": said.rollback,
        "agent_version": said.agent_version,
        "faults": row.faults.split(),
    }


def find_newest(connection: Connection, ueid: bytes) -> bytes:
    """What this board signed last. Raises NeedsPerson: nothing."""
    rows = list(list_receipts(connection, ueid))
    if not rows:
        raise NeedsPerson("this board has said no receipt yet")
    return rows[-1][0].signed
