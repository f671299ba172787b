"""The machine's own parts of one enrollment on the server, each by the library that does it best here, without us.

    python parts.py STATE CHIP BATCH apart|in-turn     STATE is a fresh issuer; prints one JSON object, us a part

Their sum is what the machine would allow if our own code cost nothing. `apart`: the best of hot loops, one part after
the other. `in-turn`: the parts of one enrollment, then of the next, as a server meets them, with caches that another
part just used; whoever calls keeps the same crowd of clients on the machine. The handshake is not here: it is measured
with the same listener and load as the server itself.
"""

import datetime
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any, Final, TypeAlias

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from exchange import Exchange, Maker
from figures import cost_of
from issuer import SLOTS

from mpserver.answering import make_answer, make_issuer
from mpserver.state import Places, State, open_ledger, open_state
from mpserver.store.sequencer import Sequencer, Work
from mpwire.messages.plain import PROOF

VERIFIES: Final = 4
"""Attester over the evidence, device key over the claims, CSR, Receipt."""
POINTS: Final = 3
"""Public keys never seen before: device sign, device KEM, certificate slot."""
SIGNS_ALONE: Final = 1
"""The Grant. The certificate's signature is inside its part; the head's is shared by a batch."""
ENROLLMENTS: Final = 512
Act: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Part:
    """What one enrollment takes of it: `act`, `times` over."""

    act: Act
    times: float = 1.0


def list_parts(folder: Path, chip: Path, batch: int) -> dict[str, Part]:
    """In the order a server meets them."""
    messages, statements = live(folder, chip, batch)
    return {
        f"{VERIFIES} P-256 verifies": Part(_verify()),
        "six codecs": Part(_codecs(messages)),
        "device certificate": Part(_certificate()),
        "HPKE seal": Part(_hpke()),
        f"P-256 signs (grant, 2 heads a batch of {batch})": Part(_sign(), SIGNS_ALONE + 2 / batch),
        f"ledger, commits of {batch}": Part(_ledger(folder, statements)),
    }


def measure_apart(parts: dict[str, Part]) -> dict[str, float]:
    """Microseconds of CPU one enrollment, by part, each in a loop of its own."""
    ledger = next(reversed(parts))
    found = {name: cost_of(one.act) * one.times for name, one in parts.items() if name != ledger}
    start = process_time()
    for _ in range(ENROLLMENTS):
        parts[ledger].act()
    found[ledger] = (process_time() - start) / ENROLLMENTS
    return {name: seconds * 1e6 for name, seconds in found.items()}


def measure_in_turn(parts: dict[str, Part]) -> dict[str, float]:
    """As `measure_apart`, but every part once for each enrollment."""
    spent = dict.fromkeys(parts, 0.0)
    for _ in range(ENROLLMENTS):
        for name, one in parts.items():
            start = process_time()
            one.act()
            spent[name] += process_time() - start
    return {name: seconds / ENROLLMENTS * parts[name].times * 1e6 for name, seconds in spent.items()}


def live(folder: Path, chip: Path, batch: int) -> tuple[list[bytes], list[tuple[str, Any]]]:
    """Enroll ENROLLMENTS boards in this process: the six messages of one, and every statement the ledger ran."""
    state = open_state(folder)
    writing = open_ledger(state.places)
    tape = Tape(writing)
    try:
        sequencer = state.make_sequencer(tape)  # type: ignore[arg-type]  # a Connection, as the store asks for
        reading = Tape(state.connection, tape.statements)
        answer = make_answer(
            make_issuer(state.authority, state.clock, reading), make_issuer(state.authority, state.clock, tape)
        )
        maker = _maker(state, chip)
        messages: list[bytes] = []
        for first in range(0, ENROLLMENTS, batch):
            devices = [maker.make() for _ in range(min(batch, ENROLLMENTS - first))]
            messages = _live_batch(devices, answer, sequencer)
        return messages, tape.statements
    finally:
        writing.close()
        state.close()


def _maker(state: State, chip: Path) -> Maker:
    return Maker(chip, state.authority.public_key("trust"), state.authority.public_key("grant"), SLOTS)


def _live_batch(devices: list[Exchange], answer: Any, sequencer: Sequencer) -> list[bytes]:
    challenges = [answer(one.hello) for one in devices]
    proofs = [one.prove(heard) for one, heard in zip(devices, challenges, strict=True)]
    grants = _settle(sequencer, [answer(one) for one in proofs])
    receipts = []
    for one, proof, grant in zip(devices, proofs, grants, strict=True):
        evidence = PROOF.decode(proof, len(proof)).evidence
        receipts.append(one.take(hashlib.sha256(evidence).digest(), grant))
    closed = _settle(sequencer, [answer(one) for one in receipts])
    for one, heard in zip(devices, closed, strict=True):
        one.end(heard)
    return [devices[0].hello, challenges[0], proofs[0], grants[0], receipts[0], closed[0]]


def _settle(sequencer: Sequencer, works: list[Work]) -> list[bytes]:
    outcomes = []
    for one in sequencer.settle(works):
        if isinstance(one, Exception):
            raise one
        outcomes.append(one)
    return outcomes


class Tape:
    """A connection that remembers what was asked of it."""

    def __init__(self, connection: sqlite3.Connection, statements: list[tuple[str, Any]] | None = None) -> None:
        self._connection = connection
        self.statements: list[tuple[str, Any]] = [] if statements is None else statements

    @property
    def in_transaction(self) -> bool:
        """As the connection says."""
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """One statement."""
        self.statements.append((sql, parameters))
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """One statement for each row."""
        rows = list(parameters)
        self.statements += [(sql, row) for row in rows]
        return self._connection.executemany(sql, rows)

    def close(self) -> None:
        """As the connection does."""
        self._connection.close()


def _ledger(folder: Path, statements: list[tuple[str, Any]]) -> Act:
    """The same statements again, on the same disk, from the ledger as it was before; commits are real.

    Each call runs the next 1/ENROLLMENTS of them, and ENROLLMENTS calls are all there are.
    """
    connection = _take_back(folder)
    bounds = [len(statements) * number // ENROLLMENTS for number in range(ENROLLMENTS + 1)]
    slices = iter([statements[first:end] for first, end in pairwise(bounds)])

    def run() -> None:
        for sql, parameters in next(slices):
            cursor = connection.execute(sql, parameters)
            if sql.startswith("SELECT"):
                cursor.fetchall()

    return run


def _take_back(folder: Path) -> sqlite3.Connection:
    """A connection to the ledger with every enrollment taken out again; administrative entries stay."""
    connection = open_ledger(Places(folder))
    (kept,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    connection.execute("PRAGMA foreign_keys = OFF")
    for table in ("grants", "slot_values", "hardware_ids", "units", "nodes"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM heads WHERE size > ?", (kept,))
    connection.execute("DELETE FROM entries WHERE idx >= ?", (kept,))
    connection.execute("UPDATE jobs SET granted = 0, state = 'open'")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _verify() -> Act:
    """With the points that are new with every board."""
    key, message = ec.generate_private_key(ec.SECP256R1()), os.urandom(900)
    signature, public, algorithm = key.sign(message, ec.ECDSA(SHA256())), key.public_key(), ec.ECDSA(SHA256())
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def run() -> None:
        for _ in range(POINTS):
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        for _ in range(VERIFIES):
            public.verify(signature, message, algorithm)

    return run


def _sign() -> Act:
    key, message, algorithm = ec.generate_private_key(ec.SECP256R1()), os.urandom(1_800), ec.ECDSA(SHA256())
    return lambda: key.sign(message, algorithm)


def _hpke() -> Act:
    suite, public = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM), ec.generate_private_key(ec.SECP256R1())
    point, plain, info = public.public_key(), os.urandom(1_000), os.urandom(300)
    return lambda: suite.encrypt(plain, point, info)


def _certificate() -> Act:
    issuer_key, device = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()).public_key()
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device CA")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    start, end = datetime.datetime(2026, 1, 1), datetime.datetime(9999, 12, 31)

    def make() -> object:
        name = [(NameOID.COMMON_NAME, "identity"), (NameOID.SERIAL_NUMBER, "0" * 64)]
        return (
            x509.CertificateBuilder(
                issuer,
                x509.Name([x509.NameAttribute(*one) for one in name]),
                device,
                x509.random_serial_number(),
                start,
                end,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(authority, critical=False)
            .sign(issuer_key, SHA256())
        )

    return make


def _codecs(messages: list[bytes]) -> Act:
    """Read what a device says and write what an issuer says, by cbor2; envelopes nested in one message included."""
    hello, challenge, proof, grant, receipt, closed = messages
    outer = cbor2.loads(cbor2.loads(proof)[2]).value
    inner = cbor2.loads(outer[2]).value
    heard = [hello, proof, challenge, hello, cbor2.loads(proof)[2], outer[0], outer[2], inner[0], inner[2], receipt]
    heard += [cbor2.loads(receipt).value[0], cbor2.loads(receipt).value[2]]
    said = [cbor2.loads(one) for one in (challenge, grant, cbor2.loads(grant).value[2], closed)]
    return lambda: ([cbor2.loads(one) for one in heard], [cbor2.dumps(one) for one in said])


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """The other core at work, as it is while clients load the server."""
    code = (
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from cryptography.hazmat.primitives.hashes import SHA256\n"
        "key = ec.generate_private_key(ec.SECP256R1())\n"
        "while True: key.public_key().verify(key.sign(b'x', ec.ECDSA(SHA256())), b'x', ec.ECDSA(SHA256()))\n"
    )
    neighbour = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def main() -> None:
    """Measure one of the two ways."""
    state, chip, batch, way = sys.argv[1:]
    parts = list_parts(Path(state), Path(chip), int(batch))
    if way == "in-turn":
        found = measure_in_turn(parts)
    else:
        with busy_neighbour():
            found = measure_apart(parts)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
