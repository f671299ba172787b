"""A whole line in one process: a real issuer over a real SQLite ledger and keystore, and boards on simulated chips.

What one says the other hears as bytes, so a test can stand between them. Nothing here is a stand-in but the chip, the
clock and the wire.
"""

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mpagent.durable import Disk
from mpagent.enrollment import Tools
from mpagent.hal.choose import BoardChoice, open_board
from mpagent.hal.ports import Board
from mpagent.image import Image, WantedSlot
from mpagent.journal import Journal
from mpagent.latch import Latch
from mpagent.record import Record
from mpagent.runner import Parts, run
from mpagent.shelf import DiskShelf
from mpagent.vault import Vault
from mpissuer.enrollment import write_refusal
from mpissuer.errors import NotNow
from mpissuer.issuer import Issuer
from mpissuer.policy import read_product
from mpissuer.ports import Authority
from mpserver.answering import make_answer
from mpserver.authority import FileAuthority, make_keystore
from mpserver.keystore import LAST_HEAD, Keystore
from mpserver.store.database import make_database, open_database
from mpserver.store.lasthead import LastHeadFile
from mpserver.store.products import seal_body
from mpserver.store.reading import SqlCatalogue, SqlLedger
from mpserver.store.sequencer import Sequencer, Work
from mpsim import fuses, silicon
from mpsim.board import BoardPlan, make_board
from mpsim.clock import SetClock
from mpsim.swtpm import SoftTpm
from mpwire import mp
from mpwire.codec import decode, encode
from mpwire.errors import MpError

STATIC_HEX = "c0ffee" * 8
PRODUCT = f"""
name = "camera"
attesters = ["mp", "tpm"]
grades = ["L"]
life_cycle = "closed"
mp_keys = ["MP_KEY", "TEST_KEY"]
eks = [EKS]
srk_hashes = ["SRK"]
minimum_software = "1.2"

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "cloud"
kind = "random"

[[slot]]
name = "licence"
kind = "static"
value_hex = "{STATIC_HEX}"

[[slot]]
name = "identity"
kind = "certificate"
"""
WANTED = (
    WantedSlot("disk", "local", "sealed"),
    WantedSlot("cloud", "random", "sealed"),
    WantedSlot("licence", "static", "sealed"),
    WantedSlot("identity", "certificate", "sealed"),
)
NOW = 1_800_000_000
"""Any fixed time; issuer certificates are made at it."""


class Line:
    """What lies between a device and an issuer: `hear` may be replaced by a thief."""

    def __init__(self, oem: "Oem") -> None:
        self.oem = oem
        self.heard: list[bytes] = []
        self.said: list[bytes] = []
        self.thief: Callable[[bytes, bytes], bytes] = lambda _asked, answer: answer

    def ask(self, outbox: bytes) -> bytes:
        """mpagent.link.Link."""
        self.heard.append(outbox)
        answer = self.thief(outbox, self.oem.hear(outbox))
        self.said.append(answer)
        return answer


class Oem:
    """An issuer with everything mpserver gives it, less HTTP."""

    def __init__(
        self,
        folder: Path,
        *,
        quota: int = 4,
        product: str = PRODUCT,
        eks: tuple[bytes, ...] = (),
        watch: Callable[[Authority], Authority] = lambda authority: authority,
    ) -> None:
        self.folder, self.clock, self.quota, self.watch = folder, SetClock(NOW), quota, watch
        self.log: list[str] = []
        folder.mkdir(mode=0o700)
        make_keystore(folder / "keys", "lab", (), NOW)
        make_database(folder / "ledger.db", {"realm": "lab"})
        self.product_text = fill_product(product, eks)
        self._write_catalogue()
        self.start()

    def start(self) -> None:
        """A server process begins: everything is read from disk."""
        keystore = Keystore(self.folder / "keys")
        self.authority = self.watch(FileAuthority(keystore, "lab", self.clock))
        self.connection = open_database(self.folder / "ledger.db")
        self.writing = open_database(self.folder / "ledger.db")
        last_head = LastHeadFile(self.folder / "keys" / LAST_HEAD)
        self.sequencer = Sequencer(self.writing, self.authority, self.clock, last_head)
        self.catalogue = SqlCatalogue(self.connection, self.authority)
        self.asking = self._make_issuer(self.catalogue)
        self.answer = make_answer(self.asking, self._make_issuer(SqlCatalogue(self.writing, self.authority)))

    def stop(self) -> None:
        """The process ends."""
        self.connection.close()
        self.writing.close()

    def restart(self) -> None:
        """The process ends and begins again."""
        self.stop()
        self.start()

    def replica(self) -> "Oem":
        """A second server process over the same ledger and keys; the caller stops it."""
        other = copy.copy(self)
        other.start()
        return other

    def hear(self, raw: bytes) -> bytes:
        """What a device would read as the body of the answer. NotNow passes through: it has no body."""
        try:
            said = self.answer(raw)
            if not isinstance(said, Work):
                return said
            (outcome,) = self.sequencer.settle([said])
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        except NotNow:
            raise
        except MpError as error:
            self.log.append(f"{error} {error.detail}")
            return write_refusal(error)

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What the ledger holds, for a test to look at."""
        return list(self.connection.execute(sql).fetchall())

    def granted(self) -> int:
        """Boards counted under the job."""
        return int(self.connection.execute("SELECT granted FROM jobs").fetchone()[0])

    def state(self, *but: str) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table, for a test that says nothing changed; tables in `but` are left out."""
        tables = [str(name) for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: self.rows(f"SELECT * FROM {table}") for table in tables if table not in but}

    def alarms(self) -> list[tuple[object, ...]]:
        """(kind, ueid, count) of every alarm kept."""
        return self.rows("SELECT kind, ueid, count FROM alarms ORDER BY kind, ueid")

    def secrets(self) -> list[bytes]:
        """Every value that boards were given by the issuer, unwrapped; certificates are no secrets."""
        found = self.connection.execute(
            "SELECT units.job, ueid, slot, version, wrapped FROM slot_values JOIN units USING (ueid)"
            " WHERE slot != 'identity'"
        )
        return [
            self.authority.unwrap(job, wrapped, encode([ueid, slot, version])).reveal()
            for job, ueid, slot, version, wrapped in found
        ]

    def dump(self) -> bytes:
        """Every byte of the ledger's files, to look for secrets in."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("ledger.db*")))

    @property
    def image(self) -> Image:
        """A provisioning image for this product."""
        return Image(
            realm="lab",
            product="camera",
            roots=(self.authority.public_key("trust"),),
            tls_roots=(),
            slots=WANTED,
            build_time=NOW - 86_400,
            mp_key_ids=(mp.key_id(class_point()),),
            swname="provisioning",
            swversion="1.2.3",
        )

    def _make_issuer(self, catalogue: SqlCatalogue) -> Issuer:
        return Issuer(self.authority, catalogue, SqlLedger(self.connection), self.clock, os.urandom)

    def _write_catalogue(self) -> None:
        connection = open_database(self.folder / "ledger.db")
        product = read_product(self.product_text)
        authority = FileAuthority(Keystore(self.folder / "keys"), "lab", self.clock)
        body = seal_body(authority, product.name, 1, self.product_text)
        row = (product.name, 1, body, product.digest, NOW)
        connection.execute("INSERT INTO products (name, version, body, digest, added_at) VALUES (?, ?, ?, ?, ?)", row)
        connection.execute(
            "INSERT INTO jobs (name, product, quota, state, place, author, created_at)"
            " VALUES ('job-1', ?, ?, 'open', 1, 'test', ?)",
            (product.name, self.quota, NOW),
        )
        for point in (class_point(), test_point()):
            connection.execute(
                "INSERT INTO attester_keys (key_id, kind, public_key, origin, mp_use, part, added_at)"
                " VALUES (?, 'mp', ?, 'simulated', 'sign', 'imx8mm', ?)",
                (mp.key_id(point), point, NOW),
            )
        for ek in product.eks:
            connection.execute(
                "INSERT INTO attester_keys (key_id, kind, public_key, origin, mp_use, part, added_at)"
                " VALUES (?, 'tpm', NULL, 'simulated', 'sign', '', ?)",
                (ek, NOW),
            )
        Keystore(self.folder / "keys").make_job_key("job-1")
        connection.close()


def class_point() -> bytes:
    """Public key that every closed imx8mm with the lab's SRK signs with."""
    return b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))[-64:]


def test_point() -> bytes:
    """Public key that open parts sign with."""
    return b"\x04" + silicon.test_public_key()[-64:]


test_point.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def fill_product(product: str, eks: tuple[bytes, ...] = ()) -> str:
    """The product file with this line's keys."""
    return (
        product.replace("MP_KEY", mp.key_id(class_point()).hex())
        .replace("TEST_KEY", mp.key_id(test_point()).hex())
        .replace("SRK", fuses.srk_hash_of("lab").hex())
        .replace("EKS", ", ".join(f'"{ek.hex()}"' for ek in eks))
    )


@dataclass
class Device:
    """One board: a chip, a disk, and the agent's parts over them. `process` is one run of the agent."""

    folder: Path
    line: Line
    image: Image
    choice: BoardChoice
    said: list[str] = field(default_factory=list)

    @property
    def disk(self) -> Disk:
        """The state partition."""
        return Disk(self.folder / "disk" / "var/lib/mpagent")

    @contextmanager
    def power(self) -> Iterator[Board]:
        """The chips, for as long as the power is on."""
        self.disk.prepare()
        with open_board(self.choice, self.folder / "disk", DiskShelf(self.disk)) as board:
            yield board

    def parts(self, board: Board) -> Parts:
        """The agent's parts, as compose puts them together."""
        vault = Vault(self.disk, board.sealer, board.counter, os.urandom)
        tools = Tools(board, vault, self.image, os.urandom, "0.1.0", self.said.append)
        return Parts(Journal(self.disk, self.said.append), self.line, Latch(self.disk), tools, vault.discard_others)

    def enroll(self) -> Record:
        """`mpagent enroll --once`."""
        with self.power() as board:
            return run(self.parts(board))

    def record(self) -> Record:
        """What survives."""
        return Journal(self.disk, self.said.append).peek()[0]

    def secrets(self) -> dict[str, bytes]:
        """Every slot, unsealed now."""
        record = self.record()
        assert record.ueid is not None
        with self.power() as board:
            slots = self.parts(board).tools.vault.read(record.ueid, record.generation)
        return {slot.name: slot.value.reveal() for slot in slots}

    def kept(self) -> dict[str, bytes]:
        """Every file of the state partition, for a test that says nothing changed."""
        folder = self.disk.folder
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def disk_bytes(self) -> bytes:
        """Every byte of the state partition, to look for secrets in."""
        return b"".join(path.read_bytes() for path in sorted(self.disk.folder.rglob("*")) if path.is_file())


@dataclass
class Factory:
    """Makes boards on one line; everything is switched off at the end."""

    folder: Path
    oem: Oem
    stack: ExitStack
    made: int = 0
    devices: list[Device] = field(default_factory=list)

    def board(self, *, closed: bool = True, uid: bytes | None = None, plan: BoardPlan | None = None) -> Device:
        """A board with a simulated i.MX8M Mini, or the part of `plan`, that attests by manufacturing protection."""
        folder = self._next()
        make_board(folder, plan or BoardPlan(closed=closed, uid=uid))
        choice = BoardChoice(("sim",), ("sim",), ("sealed",), ("sim",), sim_chip=folder / "chip")
        return self._add(Device(folder, Line(self.oem), self.oem.image, choice))

    def tpm_board(self, tpm: SoftTpm) -> Device:
        """A board whose i.MX8M does not attest; a real TPM 2.0 does, and holds its keys."""
        folder = self._next()
        make_board(folder, BoardPlan(closed=True))
        choice = BoardChoice(("tpm",), ("tpm",), ("tpm",), ("sim",), tpm_tcti=tpm.tcti, sim_chip=folder / "chip")
        return self._add(Device(folder, Line(self.oem), self.oem.image, choice))

    def copy_chip(self, device: Device) -> Device:
        """A cloner's board: the same chip identity, an empty disk."""
        folder = self._next()
        shutil.copytree(device.folder / "chip", folder / "chip")
        choice = device.choice._replace(sim_chip=folder / "chip")
        return self._add(Device(folder, Line(self.oem), self.oem.image, choice))

    def _add(self, device: Device) -> Device:
        self.devices.append(device)
        return device

    def _next(self) -> Path:
        self.made += 1
        return self.folder / f"board{self.made}"


def ask_all(device: Device, until: str) -> Record:
    """Live an enrollment until its record stands at the stage `until`; the outbox of that stage is not said."""
    from mpagent.enrollment import STORY

    with device.power() as board:
        parts = device.parts(board)
        record = parts.journal.load()
        while record.stage.value != until:
            heard = parts.link.ask(record.outbox) if record.outbox is not None else None
            record = STORY[record.stage](record, heard, parts.tools)
            parts.journal.save(record)
    return record


def refusal_check(raw: bytes) -> str:
    """The check that a Refusal names; fails the test for any other message."""
    item = decode(raw)
    assert isinstance(item, dict) and item.get(0) == 7, f"not a refusal: {raw[:24].hex()}"
    return str(item[2])
