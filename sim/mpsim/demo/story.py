"""The demo from beginning to end: four boards, seven attacks, a power cut, a restart; and its report."""

import json
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpsim.demo import attacks
from mpsim.demo.attacks import Recording
from mpsim.demo.boards import LineBoard
from mpsim.demo.children import Children
from mpsim.demo.expecting import expect
from mpsim.demo.office import JOB, PRODUCT, QUOTA, SLOTS, Office, read_class_key, write_product
from mpsim.demo.screen import Screen
from mpsim.demo.stopping import Stops
from mpsim.demo.tap import Oem, Tap
from mpsim.swtpm import SoftTpm
from mpwire.tpm2 import make_name

SIM: Final = {"attest": "sim", "seal": "sim", "keys": "sealed", "soc": "sim", "sim_chip": "../chip"}
TPM: Final = {"attest": "tpm", "seal": "tpm", "keys": "tpm", "soc": "sim", "sim_chip": "../chip"}
"""Backends of the two provisioning images. A board's chip lies beside its disk."""
ATTACKS: Final = (
    *("open-board", "replayed-proof", "clone", "over-quota"),
    *("wrong-server-ca", "tampered-grant", "cloned-disk"),
)


@dataclass(frozen=True, slots=True)
class Provisioned:
    """One row of the table and of the report."""

    board: LineBoard
    row: dict[str, Any]


@dataclass(slots=True)
class Demo:
    """Everything the parts of the story share."""

    out: Path
    screen: Screen
    children: Children
    office: Office
    stranger: Office
    tpm: SoftTpm
    stops: Stops
    images: dict[str, str] = field(default_factory=dict)
    provisioned: list[Provisioned] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def oem(self) -> Oem:
        """The server, as a board's image knows it."""
        return Oem(self.office.address, tomllib.loads(self.images["sim"])["tls_roots"][0])

    def board(self, name: str, what: str) -> LineBoard:
        """A board that is not made yet."""
        return LineBoard(name, what, self.out / name, self.children)

    def make_sim_board(self, name: str, what: str, *options: str) -> LineBoard:
        """A simulated part with the provisioning image on its disk."""
        board = self.board(name, what)
        board.make(*options)
        board.install(self.images["sim"], self.office.address)
        return board

    def refuse(self, attack: str, reason: str) -> None:
        """One attack was refused by its own check."""
        self.refused[attack] = reason
        self.screen.passed(attack, f"refused: {reason}")


def tell(out: Path, screen: Screen, stops: Stops) -> dict[str, Any]:
    """The whole demo; its report. Raises NotAsSaid at the first line that comes out otherwise."""
    start = time.monotonic()
    with _open(out, screen, stops) as demo:
        set_up(demo)
        recording = provision_sim_boards(demo)
        provision_tpm_board(demo)
        print_table(demo)
        attack(demo, recording)
        unsealed = restart_boards(demo)
        verified = restart_server(demo, recording)
    report = {
        "provisioned": [one.row for one in demo.provisioned],
        "refused": [{"attack": name, "reason": demo.refused[name]} for name in ATTACKS],
        "unsealed_after_restart": unsealed,
        "ledger_verified": verified,
        "seconds": round(time.monotonic() - start, 1),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


@contextmanager
def _open(out: Path, screen: Screen, stops: Stops) -> Iterator[Demo]:
    """All processes end with the block, however it ends."""
    logs = out / "logs"
    logs.mkdir()
    with ExitStack() as stack:
        children = Children(logs, stops)
        stack.callback(children.close)
        with stops.hold():
            tpm = SoftTpm(out / "tpm")
            stack.callback(tpm.stop)
            tpm.start()
        office, stranger = (Office(name, out / name, children) for name in ("office", "stranger"))
        yield Demo(out, screen, children, office, stranger, tpm, stops)


def set_up(demo: Demo) -> None:
    """The OEM decides: a product that wants closed parts, whose keys are known, and a job for four boards."""
    demo.screen.title("The OEM sets up its server")
    office = demo.office
    office.set_up()
    closed_key, test_key = (read_class_key(demo.children, *options) for options in ((), ("--test",)))
    ek_name = read_ek_name(demo.tpm)
    office.register(demo.out / "mp-key.json", closed_key)
    office.register(demo.out / "mp-test-key.json", test_key)
    office.register(demo.out / "ek.json", {"kind": "tpm", "ek_name": ek_name, "origin": "simulated"})
    # The server knows the test key too: without it an open board would be refused for its unknown key, and nobody
    # would see that the life cycle is checked. The images do not pin it.
    _add_product(demo, [str(closed_key["mp_key_id"]), str(test_key["mp_key_id"])], closed_key, ek_name)
    demo.images["sim"] = office.print_anchors(**SIM)
    demo.images["tpm"] = office.print_anchors(**TPM, tpm_tcti=demo.tpm.tcti)
    office.command("job", "create", JOB, "--product", PRODUCT, "--quota", str(QUOTA))
    office.command("job", "approve", JOB)
    office.run()
    demo.screen.passed("server", f"realm lab, {office.address}, own CA, SQLite ledger")
    demo.screen.passed("product", f"{PRODUCT}: closed parts, attested by MP or TPM")
    demo.screen.passed("slots", f"one of each kind: {', '.join(SLOTS.values())}")
    demo.screen.passed("job", f"{JOB}: approved for {QUOTA} boards")


def read_ek_name(tpm: SoftTpm) -> str:
    """The endorsement key's Name, as the TPM's buyer reads it with tpm2-tools: not by the code that will attest."""
    with tempfile.TemporaryDirectory(prefix="mpek-") as scratch:
        context, public = f"{scratch}/ek.ctx", f"{scratch}/ek.pub"
        tpm.use_tool("tpm2_createek", "-G", "ecc", "-c", context, "-u", public, "-f", "tss")
        tpm.use_tool("tpm2_flushcontext", "-t")
        return make_name(Path(public).read_bytes()[2:]).hex()  # TPM2B_PUBLIC: a size, then TPMT_PUBLIC


def provision_sim_boards(demo: Demo) -> Recording:
    """Three closed i.MX8M boards. The first one's line is recorded by a proxy, for the attacks to come."""
    demo.screen.title("Three closed i.MX8M boards (simulated silicon, manufacturing protection)")
    boards = [demo.make_sim_board(f"board-{number}", "i.MX8M, simulated", "--closed") for number in (1, 2, 3)]
    with Tap(demo.oem, demo.office.identity) as tap:
        boards[0].connect(tap.address)
        _provision(demo, boards[0])
    boards[0].connect(demo.office.address)
    for board in boards[1:]:
        _provision(demo, board)
    expect("board-1: messages on the line", (3, 3), (len(tap.heard), len(tap.said)), boards[0].log)
    return Recording(tap.heard, tap.said, boards[0].log)


def provision_tpm_board(demo: Demo) -> None:
    """Board 4: its i.MX8M does not attest, a TPM 2.0 does and holds the keys. Attacked twice before it enrolls."""
    demo.screen.title("One board with a real TPM 2.0 (swtpm), attacked twice before it enrolls")
    board = demo.board("board-4", "i.MX8M with TPM 2.0")
    board.make("--closed")
    board.install(demo.images["tpm"], demo.office.address)
    note = demo.screen.note
    demo.stranger.set_up()
    demo.stranger.run()
    reason = attacks.wrong_server_ca(board, demo.stranger, demo.office.address, note)
    demo.refuse("wrong-server-ca", reason)
    assert demo.stranger.process is not None  # run made it
    demo.children.stop(demo.stranger.process)
    demo.refuse("tampered-grant", attacks.tampered_grant(board, demo.office, demo.oem, note))
    demo.screen.note(board.name, "goes on from its Proof; the server counts it once")
    _provision(demo, board)


def print_table(demo: Demo) -> None:
    """What four boards got."""
    rows = [
        (
            f"{one.board.name} {one.board.what}",
            f"{one.row['attester']}, grade {one.row['grade']}",
            one.row["sealer"],
            str(len(one.row["slots"])),
            str(one.row["ledger_index"]),
            f"{one.row['seconds']:.2f} s",
        )
        for one in demo.provisioned
    ]
    demo.screen.table(("device", "attester", "sealer", "slots", "ledger index", "time"), rows)


def attack(demo: Demo, recording: Recording) -> None:
    """What a thief, a cloner and a greedy manufacturer would try."""
    demo.screen.title("Attacks, each refused by its own check")
    note, boards = demo.screen.note, [one.board for one in demo.provisioned]
    what = "i.MX8M, simulated"
    demo.refuse("open-board", attacks.open_board(demo.make_sim_board("open-board", what), note))
    demo.refuse("replayed-proof", attacks.replayed_proof(recording, demo.oem))
    twin = demo.board("clone", what)
    twin.copy_chip(boards[0])
    twin.install(demo.images["sim"], demo.office.address)
    demo.refuse("clone", attacks.clone(twin, demo.office, demo.provisioned[0].row["ueid"], note))
    fifth = demo.make_sim_board("over-quota", what, "--closed")
    demo.refuse("over-quota", attacks.over_quota(fifth, demo.office, note))
    thief = demo.make_sim_board("cloned-disk", what, "--closed")
    thief.copy_disk(boards[0])
    demo.refuse("cloned-disk", attacks.cloned_disk(thief, note))


def restart_boards(demo: Demo) -> bool:
    """Power off and on: a chip of each kind unseals the same secrets again, without asking the server."""
    demo.screen.title("Restarts")
    for board in (demo.provisioned[0].board, demo.provisioned[3].board):
        before = board.hash_secrets(list(SLOTS))
        board.power_cycle()
        if board is demo.provisioned[3].board:
            with demo.stops.hold():
                demo.tpm.power_cycle()
        board.enroll_well(demo.screen.note)
        expect(f"{board.name} holds the same secrets", before, board.hash_secrets(list(SLOTS)), board.log)
        demo.screen.passed(board.name, f"power off and on: {len(before)} of {len(SLOTS)} secrets unsealed, unchanged")
    return True


def restart_server(demo: Demo, recording: Recording) -> bool:
    """The server starts anew on its directory: it remembers every answer, and its ledger holds."""
    office = demo.office
    office.restart()
    attacks.replay(recording, demo.oem)
    demo.screen.passed("server", "stopped and started: an old Proof still gets its Closed")
    found = office.ask("ledger", "verify")
    came = {name: found.get(name) for name in ("verified", "units", "closed", "grants")}
    expected = {"verified": True, "units": QUOTA, "closed": QUOTA, "grants": QUOTA}
    expect("mpserver ledger verify", expected, came, office.log)
    listed = sorted((unit["ueid"], unit["ledger_index"]) for unit in office.ask("device", "list"))
    known = sorted((one.row["ueid"], one.row["ledger_index"]) for one in demo.provisioned)
    expect("mpserver device list", known, listed, office.log)
    text = f"{found['entries']} entries under {found['heads']} signed heads; {found['units']} boards, {QUOTA} allowed"
    demo.screen.passed("ledger verify", text)
    return True


def _add_product(demo: Demo, mp_keys: list[str], record: dict[str, object], ek_name: str) -> None:
    file = demo.out / "product.toml"
    file.write_text(write_product(mp_keys, str(record["srk_hash"]), ek_name), encoding="utf-8")
    demo.office.command("product", "add", str(file))


def _provision(demo: Demo, board: LineBoard) -> None:
    """One enrollment that must end well; its row, with the grade as the server has it."""
    begin = time.monotonic()
    result = board.enroll_well(demo.screen.note)
    seconds = round(time.monotonic() - begin, 2)
    slots = [slot["name"] for slot in result["slots"]]
    expect(f"{board.name}: slots", sorted(SLOTS), sorted(slots), board.log)
    unit = demo.office.ask("device", "show", result["ueid"])
    expect(f"{board.name}: state on the server", "provisioned", unit["state"], demo.office.log)
    row = {
        "ueid": result["ueid"],
        "attester": unit["attester"],
        "grade": unit["grade"],
        "sealer": result["sealer"],
        "slots": slots,
        "ledger_index": result["ledger_index"],
        "seconds": seconds,
    }
    demo.provisioned.append(Provisioned(board, row))
    demo.screen.passed(board.name, f"provisioned in {seconds:.2f} s, ledger index {result['ledger_index']}")
