"""Part 6 of the bench: receipts of boards without a line, from files to rows, beside what each cannot do without.

CPU of the whole `mpserver receipts import`, less that of one that has nothing to take in. Beside it the machine's own
parts by the libraries that do them best here: a P-256 point and its verification, three items of CBOR, an HMAC, and the
same rows by plain SQL in one transaction.
"""

import hashlib
import hmac
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import cbor2
from boards import HERE, meter
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from figures import Figure, cost_of, table, write_report

from mpserver.cli import main

sys.path.insert(0, str(HERE.parents[1]))  # the tests' own boards and bundles
from tests.mpserver.lots import Lot, make_board, say

JOINED: Final = 10_000
SINGLE: Final = 2_000
QUOTA: Final = 1_000_000
ROWS: Final = 7
"""Of one receipt: itself, three ids, its entry, and two nodes of the tree."""


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes receipts.json."""
    lot = Lot(_Desk(scratch), QUOTA)  # type: ignore[arg-type]  # what a lot uses of a desk
    bundle = lot.print_bundle()
    said = [say(make_board(), bundle) for _ in range(JOINED + SINGLE + 1)]
    idle = _import(lot, lot.write("idle.receipts", said[-1]))  # kept from here on: the next time it is known
    idle = min((_import(lot, str(scratch / "idle.receipts")) for _ in range(3)), key=lambda one: one["cpu_s"])
    joined = _import(lot, lot.write("joined.receipts", *said[:JOINED]))
    for number, one in enumerate(said[JOINED:-1]):
        lot.write(f"single/{number:05d}.receipts", one)
    single = _import(lot, str(scratch / "single"))
    found = {
        "in one file": (joined["cpu_s"] - idle["cpu_s"]) / JOINED * 1e6,
        "one in each file": (single["cpu_s"] - idle["cpu_s"]) / SINGLE * 1e6,
    }
    parts = {name: cost_of(act) * 1e6 for name, act in _list_parts(said[0]).items()}
    parts["rows by plain SQL"] = _measure_rows(scratch, said[0])
    return _report(out, found, parts, joined["peak_mib"])


class _Desk:
    """What a lot asks of an operator, without pytest."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, nothing."""
        with redirect_stdout(io.StringIO()) as told:
            code = main(["--dir", str(self.state), *words])
        return code, told.getvalue(), ""

    def read(self, *words: str) -> Any:
        """The JSON value of a command that must end well."""
        code, told, _ = self.run(*words, "--json")
        if code != 0:
            raise RuntimeError(f"mpserver {words[0]} ended with {code}")
        return json.loads(told)

    def write(self, name: str, text: str) -> str:
        """A file to hand over."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)


def _import(lot: Lot, place: str) -> dict[str, float]:
    command = (sys.executable, "-m", "mpserver", "--dir", str(lot.desk.state), "receipts", "import", place)
    spent: dict[str, float] = meter(*command)
    return spent


def _list_parts(written: bytes) -> dict[str, Callable[[], object]]:
    row = written[4:]
    signed, _ = cbor2.loads(row)
    inner = cbor2.loads(signed).value[2]
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    digest = hashlib.sha256(signed).digest()
    signature = key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256())))

    def verify() -> None:
        loaded = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        loaded.verify(signature, digest, ec.ECDSA(utils.Prehashed(SHA256())))

    def decode() -> None:
        for one in (row, signed, inner):
            cbor2.loads(one)

    return {
        "a P-256 point and its verify": verify,
        "three items by cbor2": decode,
        "HMAC and SHA-256": lambda: (hmac.digest(bytes(32), signed, "sha256"), hashlib.sha256(signed).digest()),
    }


def _measure_rows(scratch: Path, written: bytes) -> float:
    """Microseconds of CPU a receipt."""
    connection = sqlite3.connect(scratch / "rows.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE rows (id BLOB PRIMARY KEY, body BLOB NOT NULL)")
    sizes = (len(written), *(110,) * 3, 150, *(40,) * 2)
    rows = [(os.urandom(32), bytes(size)) for _ in range(1_000) for size in sizes]

    def insert() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", rows)
        connection.execute("COMMIT")

    try:
        return cost_of(insert, seconds=0.5, rounds=3) * 1e6 / (len(rows) / ROWS)
    finally:
        connection.close()


def _report(out: Path, found: dict[str, float], parts: dict[str, float], peak_mib: float) -> list[Figure]:
    total = sum(parts.values())
    rows: list[tuple[object, ...]] = [("receipts taken in", "CPU us each", "each second", "times the parts")]
    rows += [(name, cost, 1e6 / cost, cost / total) for name, cost in found.items()]
    rows += [("its parts together", total, 1e6 / total, 1.0)]
    rows += [(f"  {name}", cost, 1e6 / cost, None) for name, cost in parts.items()]
    print(table(rows))
    print(f"peak of {JOINED} in one file: {peak_mib:.0f} MiB\n")
    write_report(out / "receipts.json", [], {"cpu_us": found, "parts_cpu_us": parts, "peak_mib": peak_mib})
    return []
