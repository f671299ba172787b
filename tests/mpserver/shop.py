"""A ledger to break: a real keystore, a real SQLite file, and orders as the issuer would hand them over."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpissuer.issuer import Issuer
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpissuer.policy import read_product
from mpserver.answering import grant_work, make_issuer, receipt_work
from mpserver.authority import FileAuthority, make_keystore
from mpserver.keystore import Keystore
from mpserver.store.audit import Findings, verify_ledger
from mpserver.store.database import Connection, make_database, open_database
from mpserver.store.lasthead import LastHeadFile
from mpserver.store.products import seal_body
from mpserver.store.reading import SqlLedger
from mpserver.store.sequencer import Outcome, Sequencer, Work
from mpsim.clock import SetClock
from mpwire.p256 import SoftKey

NOW = 1_800_000_000
KEM = SoftKey.generate().public_key()
PRODUCT = """
name = "camera"
attesters = ["mp"]
grades = ["L"]
life_cycle = "any"

[[slot]]
name = "cloud"
kind = "random"
"""
JOB = "job-1"


def make_shop(folder: Path, quota: int = 4) -> "Shop":
    """Keys, an empty ledger, one product, one open job."""
    folder.mkdir(mode=0o700)
    make_keystore(folder / "keys", "lab", (), NOW)
    make_database(folder / "ledger.db", {"realm": "lab"})
    product = read_product(PRODUCT)
    connection = open_database(folder / "ledger.db")
    authority = FileAuthority(Keystore(folder / "keys"), "lab", SetClock(NOW))
    row = (product.name, 1, seal_body(authority, product.name, 1, PRODUCT), product.digest, NOW)
    connection.execute("INSERT INTO products (name, version, body, digest, added_at) VALUES (?, ?, ?, ?, ?)", row)
    connection.execute(
        "INSERT INTO jobs (name, product, quota, state, place, author, created_at) VALUES (?, ?, ?, 'open', 1, 't', ?)",
        (JOB, product.name, quota, NOW),
    )
    connection.close()
    Keystore(folder / "keys").make_job_key(JOB)
    return Shop(folder, FileAuthority(Keystore(folder / "keys"), "lab", SetClock(NOW)))


class Shop:
    """One server process over a state directory; `wrap` stands between it and SQLite."""

    def __init__(
        self,
        folder: Path,
        authority: FileAuthority,
        wrap: Callable[[sqlite3.Connection], Connection] = lambda connection: connection,
        last_head: LastHeadFile | None = None,
    ) -> None:
        self.folder, self.authority, self.clock = folder, authority, SetClock(NOW)
        self.last_head = last_head or LastHeadFile(folder / "keys" / "last-head")
        self.raw = open_database(folder / "ledger.db")
        self.connection = wrap(self.raw)
        self.issuer: Issuer = make_issuer(authority, self.clock, self.connection)
        self.sequencer = Sequencer(self.connection, authority, self.clock, self.last_head)

    def close(self) -> None:
        """The process ends; what was not committed is gone."""
        self.raw.close()

    def settle(self, works: Sequence[Work]) -> list[Outcome]:
        """One batch."""
        return self.sequencer.settle(works)

    def order(self, **changes: Any) -> GrantOrder:
        """A verified Proof of a new board."""
        product = self.issuer.catalogue.product("camera")
        fields: dict[str, Any] = {
            "product": product,
            "ueid": b"\x01" + os.urandom(32),
            "attester": "mp",
            "grade": "L",
            "hardware_ids": {"imx-uid": os.urandom(8)},
            "sign_key": SoftKey.generate().public_key(),
            "kem_key": KEM,
            "certificate_keys": {},
            "hello_hash": os.urandom(32),
            "nonce": os.urandom(60),
            "proof_digest": os.urandom(32),
            "evidence_hash": os.urandom(32),
        }
        return GrantOrder(**{**fields, **changes})

    def grant(self, *orders: GrantOrder) -> list[Outcome]:
        """Settle Proofs as one batch."""
        return self.settle([grant_work(order, self.issuer) for order in orders])

    def receipt(self, order: GrantOrder) -> ReceiptOrder:
        """A verified Receipt for the Grant that answered this Proof."""
        ledger = SqlLedger(self.raw)
        granted = self.raw.execute("SELECT digest FROM grants WHERE proof_digest = ?", (order.proof_digest,)).fetchone()
        row = ledger.find_grant(granted[0])
        assert row is not None
        return ReceiptOrder(row.digest, hashlib.sha256(row.digest).digest(), row)

    def close_units(self, *orders: GrantOrder) -> list[Outcome]:
        """Settle Receipts as one batch."""
        return self.settle([receipt_work(self.receipt(order), self.issuer) for order in orders])

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def granted(self) -> int:
        """Boards counted under the job."""
        return int(self.raw.execute("SELECT granted FROM jobs").fetchone()[0])

    def verify(self) -> Findings:
        """`mpserver ledger verify`; raises StoreDamaged."""
        roots = (self.authority.public_key("trust"),)
        return verify_ledger(self.raw, roots, "lab", self.last_head.read())

    def copy(self, folder: Path) -> Path:
        """The state directory as it lies on the disk now; the keys stay where they are."""
        shutil.copytree(self.folder, folder)
        return folder


def answer_of(outcome: Outcome) -> bytes:
    """The bytes, or the test fails with what was raised."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
