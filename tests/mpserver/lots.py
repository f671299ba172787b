"""Boards without a line, a bundle that was printed for them, and the files that come back."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from mpserver.keystore import Keystore
from mpserver.state import State, open_state
from mpserver.store.books import SqlBooks
from mpserver.store.bundles import BundleRow, BundleSlot, digest_row, insert_bundle
from mpserver.store.sequencer import Work
from mpserver.vault import FileVault
from mpwire import hkdf
from mpwire.bundlekeys import make_receipt_key
from mpwire.bundlereceipt import write_receipt
from mpwire.messages.bundle import BundleReceipt
from mpwire.messages.grant import SlotReceipt
from mpwire.messages.issuer import ENTRY, Entry
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.ueid import make_ueid
from tests.mpserver.desk import Desk

PRK = Secret(hashlib.sha256(b"class key").digest())
VAULT_NAME = "mpk-" + "ab" * 16
CHECK = hashlib.sha256(b"check").digest()[:16]
OWN_CHECK = hashlib.sha256(b"own check").digest()[:16]
PRODUCT = """
name = "camera"
attesters = ["mp"]
grades = ["S"]
mp_use = "secret"
mpk = "abababababababababababababababab"

[[slot]]
name = "cloud"
kind = "random"
"""


@dataclass(frozen=True, slots=True)
class OfflineBoard:
    """One board, by its fuses and its device key."""

    uid: bytes
    key: SoftKey

    @property
    def ueid(self) -> bytes:
        """As its fuses give it."""
        return make_ueid("mp", "imx8mm", self.uid)


def make_board(uid: bytes | None = None) -> OfflineBoard:
    """With a device key of its own."""
    return OfflineBoard(uid or os.urandom(8), SoftKey.generate())


class Lot:
    """An OEM's server with product, job and vault; `desk` types the commands."""

    def __init__(self, desk: Desk, quota: int = 100) -> None:
        self.desk = desk
        assert desk.run("init", "--realm", "lab")[0] == 0
        desk.read("product", "add", desk.write("product.toml", PRODUCT))
        self.make_job("lot-1", quota)
        FileVault(Keystore(desk.state / "keys").path).keep(VAULT_NAME, PRK)

    def make_job(self, name: str, quota: int = 100) -> None:
        """Approved."""
        self.desk.read("job", "create", name, "--product", "camera", "--quota", str(quota))
        self.desk.read("job", "approve", name)

    def print_bundle(self, **changes: Any) -> BundleRow:
        """As `bundle create` leaves it in the ledger."""
        fields: dict[str, Any] = {
            "digest": os.urandom(32),
            "product": "camera",
            "job": "lot-1",
            "authority": "mp",
            "version": 1,
            "minimum": 1,
            "made_at": 1_800_000_000,
            "expires": 1_900_000_000,
            "quantity": None,
            "uids": None,
            "policy_digest": bytes(32),
            "vault_name": VAULT_NAME,
            "slots": (BundleSlot("cloud", 1, "fill", None, CHECK),),
        }
        row = BundleRow(**{**fields, **changes})
        state = self.open()

        def act(books: SqlBooks) -> bytes:
            insert_bundle(state.connection, row)
            books.append(ENTRY.encode(Entry("bundle", 1_800_000_000, row.job, digest_row(row))))
            return b""

        assert state.make_sequencer(state.connection).settle([Work(act)]) == [b""]
        state.close()
        return row

    def open(self) -> State:
        """Of the server."""
        return open_state(self.desk.state)

    def count(self, table: str = "bundle_receipts") -> int:
        """Rows."""
        state = self.open()
        found = state.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        state.close()
        return int(found)

    def write(self, name: str, *receipts: bytes) -> str:
        """A receipts file."""
        path = self.desk.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(receipts))
        return str(path)


def say(board: OfflineBoard, bundle: BundleRow, prk: Secret = PRK, **changes: Any) -> bytes:
    """A receipt as the board writes it, and as a board that lies could; `mac_job` is the job its MAC key is for."""
    job = changes.pop("mac_job", bundle.job)
    slots = [
        SlotReceipt(one.name, "caam", one.version, one.check)
        for one in bundle.slots
        if one.uid in (None, board.uid) and one.name != "policy"
    ]
    fields: dict[str, Any] = {
        "bundle_digest": bundle.digest,
        "ueid": board.ueid,
        "key": board.key.public_key(),
        "hardware_ids": {"imx-uid": board.uid},
        "product": bundle.product,
        "job": bundle.job,
        "authority": bundle.authority,
        "version": bundle.version,
        "slots": tuple(slots),
        "skipped": (),
        "rollback": "none",
        "closed_proof": "mp-key",
        "agent_version": "1.0",
        "life_cycle": 3,
    }
    key = make_receipt_key(lambda info: hkdf.expand(prk, info), bundle.product, job)
    return write_receipt(BundleReceipt(**{**fields, **changes}), board.key.sign, key)
