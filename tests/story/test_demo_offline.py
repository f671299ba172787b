"""The demo without a network as a stranger runs it, and what it leaves behind. No other test runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mpsim.silicon import class_public_key
from tests.story.test_demo import processes_of
from tests.walls.rooms import ROOT

OUT = ROOT / "out" / "demo-offline"
SLOTS = ["disk", "cloud", "licence", "firmware", "update-oem"]
REFUSED = {
    "open-board": "bundle-life-cycle",
    "no-job-secret": "bundle-secret",
    "other-fuses": "bundle-key",
    "torn-bundle": "bundle-payload",
    "update-too-soon": "bundle-authority-key",
    "older-bundle": "bundle-old",
    "cloned-disk": "this disk belongs to another board",
}


def test_the_demo_without_a_network_comes_out_as_said_and_shows_no_secret() -> None:
    """A clone and a board too many take the bundle; what nobody refuses, the receipts tell."""
    done = subprocess.run(
        ["make", "-s", "demo-offline"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert processes_of(OUT) == []
    report = json.loads((OUT / "report.json").read_text(encoding="utf-8"))
    check_report(report)
    for name, reason in REFUSED.items():
        assert f" ok {name:<16}  refused: {reason}" in printed.splitlines()
    assert "\x1b" not in printed and str(ROOT) not in printed.replace(str(OUT / "report.json"), "")
    check_no_secret_is_shown(printed)


def check_report(report: dict[str, Any]) -> None:
    """Three boards, a found key, seven refusals, two conflicts, an intact ledger, and nothing else."""
    keys = ["provisioned", "scans", "refused", "updated", "conflicts", "unsealed_after_restart", "ledger_verified"]
    assert list(report) == [*keys, "seconds"]
    assert report["scans"] == {"line-image": "clean", "leaked-image": "mp-public-key"}
    assert report["refused"] == [{"board": name, "reason": reason} for name, reason in REFUSED.items()]
    assert report["updated"] == ["board-1", "board-2"]
    assert report["conflicts"] == ["clone", "over-quantity"]
    assert report["unsealed_after_restart"] is True and report["ledger_verified"] is True
    rows = report["provisioned"]
    assert [row["bundle_versions"] for row in rows] == [{"mp": 2, "oem": 1}] * 2 + [{"mp": 2}]
    assert all(row["slots"] == SLOTS and row["closed_proof"] == "mp-key" for row in rows)
    assert len({row["ueid"] for row in rows}) == 3


def check_no_secret_is_shown(printed: str) -> None:
    """Neither on the screen nor in a log nor in the report; and the MP public key in no file at all."""
    logs = b"".join(path.read_bytes() for path in sorted((OUT / "logs").iterdir()))
    assert b"board-1" in logs
    shown = logs + printed.encode() + (OUT / "report.json").read_bytes()
    secrets = [(OUT / "desk" / name).read_bytes() for name in ("licence", "licence-2")]
    for name in ("disk", "cloud"):
        command = [Path(sys.executable).with_name("mpagent"), "--root", OUT / "board-1" / "disk", "secret", "get", name]
        secrets.append(subprocess.run(command, capture_output=True, check=True).stdout)
    for value in secrets:
        assert len(value) >= 24 and value not in shown and value.hex().encode() not in shown.lower()
    assert (OUT / "desk" / "job-secret.txt").read_bytes().strip() not in shown
    key = read_key()
    for path in OUT.rglob("*"):
        if path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            assert key not in raw and key.hex().encode() not in raw.lower(), path


def read_key() -> bytes:
    """The class key of the demo's boards, X || Y."""
    done = subprocess.run(
        [Path(sys.executable).with_name("mpsim"), "mp-key", "--part", "imx8mm", "--json"],
        capture_output=True,
        check=True,
    )
    told = json.loads(done.stdout)
    key = bytes.fromhex(told["public_key"])
    assert class_public_key("imx8mm", bytes.fromhex(told["srk_hash"])) == key
    return key
