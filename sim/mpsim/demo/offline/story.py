"""The demo without a line, from beginning to end: three boards, six refusals, an update, receipts, and its report."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpsim.demo.children import Children
from mpsim.demo.expecting import expect
from mpsim.demo.office import JOB, PRODUCT, Office
from mpsim.demo.offline import refusals
from mpsim.demo.offline.boards import SETTINGS, OfflineBoard
from mpsim.demo.offline.oem import NEEDS_PERSON, QUANTITY, SLOTS, Oem, cut, pack_image
from mpsim.demo.screen import Screen
from mpsim.demo.stopping import Stops

WHAT: Final = "i.MX8M, simulated"
SECRETS: Final = tuple(name for name, kind in SLOTS.items() if kind != "update-key")
"""What `mpagent secret get` gives; an update key is for the agent alone."""
REFUSALS: Final = (
    "open-board",
    "no-job-secret",
    "other-fuses",
    "torn-bundle",
    "update-too-soon",
    "older-bundle",
    "cloned-disk",
)
FOUND: Final = "mp-public-key"
"""What the scan calls the planted key."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """One row of the table and of the report."""

    board: OfflineBoard
    row: dict[str, Any]


@dataclass(slots=True)
class Demo:
    """Everything the parts of the story share."""

    out: Path
    screen: Screen
    children: Children
    oem: Oem
    image: str = ""
    bundles: dict[str, Path] = field(default_factory=dict)
    provisioned: list[Provisioned] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """SHA-256 of secrets after the update, by board."""

    def board(self, name: str, *options: str) -> OfflineBoard:
        """A simulated part with the provisioning image on its disk."""
        board = OfflineBoard(name, WHAT, self.out / name, self.children)
        board.make(*options)
        board.flash(self.image, SETTINGS)
        return board

    def refuse(self, name: str, reason: str) -> None:
        """One board took nothing."""
        self.refused[name] = reason
        self.screen.passed(name, f"refused: {reason}")


def tell(out: Path, screen: Screen, stops: Stops) -> dict[str, Any]:
    """The whole demo; its report. Raises NotAsSaid at the first line that comes out otherwise."""
    start = time.monotonic()
    with _open(out, screen, stops) as demo:
        set_up(demo)
        scans = scan_images(demo)
        provision(demo)
        refuse_others(demo)
        updated = update(demo)
        conflicts = collect_receipts(demo)
        unsealed = restart(demo)
        verified = verify(demo)
    report = {
        "provisioned": [one.row for one in demo.provisioned],
        "scans": scans,
        "refused": [{"board": name, "reason": demo.refused[name]} for name in REFUSALS],
        "updated": updated,
        "conflicts": conflicts,
        "unsealed_after_restart": unsealed,
        "ledger_verified": verified,
        "seconds": round(time.monotonic() - start, 1),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


@contextmanager
def _open(out: Path, screen: Screen, stops: Stops) -> Iterator[Demo]:
    """All processes end with the block, however it ends."""
    logs, desk = out / "logs", out / "desk"
    logs.mkdir()
    desk.mkdir()
    with ExitStack() as stack:
        children = Children(logs, stops)
        stack.callback(children.close)
        yield Demo(out, screen, children, Oem(Office("office", out / "office", children), desk))


def set_up(demo: Demo) -> None:
    """The key is a secret from here on; two bundles are made, the second of which counts."""
    demo.screen.title("The OEM sets up, and makes a bundle for a lot")
    oem = demo.oem
    oem.office.set_up()
    oem.hide_key()
    demo.screen.passed("vault", f"MP public key of {WHAT.split(',')[0]} kept as {oem.mpk}; never printed")
    demo.image = oem.set_up()
    demo.screen.passed("product", f"{PRODUCT}: mp_use secret, job {JOB} for {QUANTITY} boards")
    demo.bundles["older"] = oem.load_first("older", 1)
    demo.bundles["first"] = first = oem.load_first("first", 2)
    oem.office.command("bundle", "extract-test", str(first), "--job-secret-file", str(oem.job_secret))
    demo.screen.passed("bundle", f"version 2, {first.stat().st_size} bytes, every component opened for a test")


def scan_images(demo: Demo) -> dict[str, str]:
    """Before it leaves the house: the image is clean, and one with a log of the bench in it is not."""
    demo.screen.title("Images are scanned before they ship")
    board = demo.board("golden")
    clean = pack_image(board.disk, demo.out / "line-image.tar", None)
    found = demo.oem.end_with(0, "scan-image", str(clean), "--product", PRODUCT)
    expect("line-image: findings", [], found["findings"], demo.oem.office.log)
    demo.screen.passed("line-image", f"{clean.stat().st_size} bytes, clean")
    leaked = pack_image(board.disk, demo.out / "leaked-image.tar", demo.oem.planted)
    found = demo.oem.end_with(NEEDS_PERSON, "scan-image", str(leaked), "--product", PRODUCT)
    kinds = {one["kind"] for one in found["findings"]}
    expect("leaked-image: the planted key is found", True, FOUND in kinds, demo.oem.office.log)
    demo.screen.passed("leaked-image", f"must not ship: {FOUND} in var/log/bench.log")
    leaked.unlink()
    return {"line-image": "clean", "leaked-image": FOUND}


def provision(demo: Demo) -> None:
    """One bundle for all. The first board is handled by a person, the others by the service at boot."""
    demo.screen.title(f"{QUANTITY} closed boards take one bundle; no network")
    oem, note = demo.oem, demo.screen.note
    for number in range(1, QUANTITY + 1):
        board = demo.board(f"board-{number}", "--closed")
        begin = time.monotonic()
        if number == 1:
            board.plug_in(oem.job_secret)
            done, _ = board.apply(demo.bundles["first"], note, "--dry-run")
            expect(f"{board.name} tries the bundle", 0, done.code, board.log)
            done, _ = board.apply(demo.bundles["first"], note)
            expect(f"{board.name} takes the bundle", 0, done.code, board.log)
        else:
            board.plug_in(oem.job_secret, demo.bundles["first"])
        result = board.enroll_well(note)
        _note_provisioned(demo, board, result, round(time.monotonic() - begin, 2))
    rows = [
        (
            f"{one.board.name} {WHAT}",
            "mp 2",
            str(len(one.row["slots"])),
            one.row["closed_proof"],
            f"{one.row['seconds']:.2f} s",
        )
        for one in demo.provisioned
    ]
    demo.screen.table(("device", "bundle", "slots", "closed by", "time"), rows)


def _note_provisioned(demo: Demo, board: OfflineBoard, result: dict[str, Any], seconds: float) -> None:
    slots = [slot["name"] for slot in result["slots"]]
    expect(f"{board.name}: slots", sorted(SLOTS), sorted(slots), board.log)
    expect(f"{board.name}: bundles", {"mp": 2}, result["bundle_versions"], board.log)
    expect(f"{board.name}: receipts on the medium", 1, len(board.receipts), board.log)
    receipt = demo.oem.office.ask("inspect", str(board.receipts[0]))
    row = {
        "ueid": result["ueid"],
        "bundle_versions": result["bundle_versions"],
        "slots": slots,
        "closed_proof": _find(receipt, "closed_proof"),
        "seconds": seconds,
    }
    demo.provisioned.append(Provisioned(board, row))
    demo.screen.passed(board.name, f"provisioned in {seconds:.2f} s; its receipt lies on the medium")


def _find(tree: dict[str, Any], name: str) -> Any:
    """A field of what `inspect --json` printed, wherever it stands."""
    if tree["name"] == name:
        return tree.get("value")
    return next((found for one in tree.get("inside", []) if (found := _find(one, name)) is not None), None)


def refuse_others(demo: Demo) -> None:
    """What is not closed, not ours, not whole, not new or not this board's takes nothing."""
    demo.screen.title("Boards and bundles that do not fit")
    oem, note, first = demo.oem, demo.screen.note, demo.bundles["first"]
    demo.bundles["update"] = oem.update()
    for name, options, secret, check in (
        ("open-board", (), oem.job_secret, "bundle-life-cycle"),
        ("no-job-secret", ("--closed",), None, "bundle-secret"),
        ("other-fuses", ("--closed", "--srk-name", "somebody else"), oem.job_secret, "bundle-key"),
    ):
        board = demo.board(name, *options)
        board.plug_in(secret, first)
        demo.refuse(name, refusals.refuse_start(board, check, refusals.OPERATOR, note))
    spare = demo.board("spare", "--closed")
    spare.plug_in(oem.job_secret)
    torn = cut(first, demo.out / "torn.mpbundle")
    demo.refuse("torn-bundle", refusals.refuse_apply(spare, torn, "bundle-payload", refusals.PEER_BROKE, note))
    check = "bundle-authority-key"
    demo.refuse("update-too-soon", refusals.refuse_apply(spare, demo.bundles["update"], check, refusals.OPERATOR, note))
    board = demo.provisioned[0].board
    demo.refuse(
        "older-bundle", refusals.refuse_apply(board, demo.bundles["older"], "bundle-old", refusals.OPERATOR, note)
    )
    thief = demo.board("cloned-disk", "--closed")
    demo.refuse("cloned-disk", refusals.refuse_disk(thief, board, note))


def update(demo: Demo) -> list[str]:
    """A bundle under the oem's update key, which lies in a slot of the first loading: one slot, another value."""
    demo.screen.title("An update under the OEM's own key")
    for one, looked_at in zip(demo.provisioned[:2], (SECRETS, ("licence",)), strict=True):
        board, before = one.board, one.board.hash_secrets(list(looked_at))
        done, result = board.apply(demo.bundles["update"], demo.screen.note)
        expect(f"{board.name} takes the update", (0, ["licence"]), (done.code, result.get("replaced")), board.log)
        demo.hashes[board.name] = after = board.hash_secrets(list(looked_at))
        changed = [name for name in looked_at if before[name] != after[name]]
        expect(f"{board.name}: what changed", ["licence"], changed, board.log)
        one.row["bundle_versions"] = result["bundle_versions"]
        demo.screen.passed(board.name, f"slot licence replaced; {len(looked_at)} slots looked at, no other changed")
    return list(demo.hashes)


def collect_receipts(demo: Demo) -> list[str]:
    """Two lines hand over their media; then a third one does, which built a board too many and a clone."""
    demo.screen.title("Receipts come back, from three lines")
    oem, boards = demo.oem, [one.board for one in demo.provisioned]
    lines = [_collect(demo, "line-a", boards[:2]), _collect(demo, "line-b", boards[1:])]
    told = oem.end_with(0, "receipts", "import", *map(str, lines))
    came = (told["new"], told["known"], len(told["conflicts"]))
    expect("receipts of two lines: new, known, conflicts", (5, 2, 0), came, oem.office.log)
    said = f"{told['new']} receipts of {len(boards)} boards, {told['known']} handed over twice, no conflict"
    demo.screen.passed("line-a, line-b", said)
    torn = demo.out / "torn.receipts"
    torn.write_bytes(boards[0].receipts[0].read_bytes()[:-1])
    oem.end_with(refusals.DAMAGED, "receipts", "import", str(torn))
    demo.screen.passed("torn.receipts", "a file that does not hold keeps nothing")
    third = _collect(demo, "line-c", [_build_clone(demo, boards[0]), _build_surplus(demo)])
    told = oem.end_with(NEEDS_PERSON, "receipts", "import", str(third))
    conflicts = sorted(one["conflict"] for one in told["conflicts"])
    expect("receipts of the third line", ["clone", "over-quantity"], conflicts, oem.office.log)
    demo.screen.passed("clone", "took the bundle, as every genuine closed part does; its receipt is in conflict")
    demo.screen.passed("over-quantity", f"a board beyond {QUANTITY} took it too; its receipt is in conflict")
    return conflicts


def _build_clone(demo: Demo, original: OfflineBoard) -> OfflineBoard:
    """Another board with the chip identity of a good one, and device keys of its own. No board can refuse it."""
    clone = demo.board("clone")
    shutil.rmtree(clone.folder)
    clone.copy_chip(original)
    clone.flash(demo.image, SETTINGS)
    clone.plug_in(demo.oem.job_secret, demo.bundles["first"])
    clone.enroll_well(demo.screen.note)
    return clone


def _build_surplus(demo: Demo) -> OfflineBoard:
    """The spare board, which was refused a torn bundle before."""
    spare = OfflineBoard("spare", WHAT, demo.out / "spare", demo.children)
    spare.plug_in(demo.oem.job_secret, demo.bundles["first"])
    spare.enroll_well(demo.screen.note)
    return spare


def _collect(demo: Demo, name: str, boards: list[OfflineBoard]) -> Path:
    """What these boards wrote, in one folder."""
    folder = demo.out / name
    folder.mkdir()
    for board in boards:
        for one in board.receipts:
            shutil.copy(one, folder)
    return folder


def restart(demo: Demo) -> bool:
    """Power off and on, without the medium: the same secrets unseal, and nobody is asked."""
    demo.screen.title("Restarts")
    for one in demo.provisioned[:2]:
        board, before = one.board, demo.hashes[one.board.name]
        board.pull_out()
        board.power_cycle()
        board.enroll_well(demo.screen.note)
        expect(f"{board.name} holds the same secrets", before, board.hash_secrets(list(before)), board.log)
        demo.screen.passed(board.name, "power off and on, no medium: every slot unsealed, as it was")
    return True


def verify(demo: Demo) -> bool:
    """The ledger holds, and says of each board what it took."""
    office = demo.oem.office
    found = office.ask("ledger", "verify")
    report = demo.oem.end_with(NEEDS_PERSON, "receipts", "report", "--product", PRODUCT)
    boards = {one["ueid"]: one["versions"] for one in report["boards"]}
    for one in demo.provisioned:
        expect(f"{one.board.name}: last versions", one.row["bundle_versions"], boards[one.row["ueid"]], office.log)
    expect("boards by their receipts", QUANTITY + 1, len(boards), office.log)  # the clone goes by the name of board-1
    demo.screen.passed("ledger verify", f"{found['entries']} entries under {found['heads']} signed heads")
    return True
