"""Where the pure issuer meets the ledger: an order that was verified becomes work for the sequencer."""

import os
from collections.abc import Sequence

from mpissuer import enrollment
from mpissuer.booking import book_grant, book_receipt, make_closed
from mpissuer.issuer import Issuer
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpissuer.ports import Authority, Clock
from mpserver.service import Answer
from mpserver.store.database import Connection
from mpserver.store.reading import SqlCatalogue, SqlLedger
from mpserver.store.sequencer import Work


def make_issuer(authority: Authority, clock: Clock, connection: Connection) -> Issuer:
    """Over one connection, with the system's randomness."""
    catalogue, ledger = SqlCatalogue(connection, authority), SqlLedger(connection)
    return Issuer(authority=authority, catalogue=catalogue, ledger=ledger, clock=clock, random=os.urandom)


def make_answer(asking: Issuer, booking: Issuer) -> Answer:
    """`asking` reads on the loop's thread and connection, `booking` inside the writer's transaction."""

    def answer(raw: bytes) -> bytes | Work:
        said = enrollment.answer(raw, asking)
        if isinstance(said, GrantOrder):
            return grant_work(said, booking)
        if isinstance(said, ReceiptOrder):
            return receipt_work(said, booking)
        return said

    return answer


def grant_work(order: GrantOrder, issuer: Issuer) -> Work:
    """A Grant, new or stored."""
    return Work(lambda books: book_grant(order, books, issuer), ueid=order.ueid, newcomer=order.sign_key)


def receipt_work(order: ReceiptOrder, issuer: Issuer) -> Work:
    """A Closed, new or stored."""

    def close(index: int, path: Sequence[bytes], entry: bytes, head: bytes) -> bytes:
        return make_closed(order, index, list(path), entry, head)

    return Work(
        lambda books: book_receipt(order, books, issuer),
        close=close,
        ueid=order.row.ueid,
        newcomer=order.row.sign_key,
        receipt=order.raw,
        is_final=order.is_final,
    )
