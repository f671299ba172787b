"""What is shipped: each wheel holds its own rooms and nothing else, whatever lies about in a working copy."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.walls.rooms import ROOT

WHEELS = {
    "mpagent": (".", "agent", {"mpwire", "mpagent"}),
    "mpagent_server": ("server", "server", {"mpissuer", "mpserver"}),
    "mpagent_sim": ("sim", "sim", {"mpsim"}),
}


def strangers(entries: list[str], rooms: set[str], wheel: str) -> list[str]:
    """Entries of a wheel that belong neither to its rooms nor to its metadata."""
    return [name for name in entries if (top := name.split("/")[0]) not in rooms and not top.startswith(f"{wheel}-")]


def export(target: Path) -> None:
    """The committed tree alone: nothing built, nothing left over, nothing half-written."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    archive = target / "tree.tar"
    subprocess.run(["git", "archive", "--output", str(archive), "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as tree:
        tree.extractall(target, filter="data")


def build(folder: Path, into: Path) -> list[str]:
    """Entries of the one wheel built from `folder`, without asking a registry."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(into)]
    subprocess.run([*command, str(folder)], check=True)
    (wheel,) = into.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        return content.namelist()


@pytest.mark.parametrize("wheel", WHEELS)
def test_a_wheel_from_a_clean_export_holds_its_rooms_and_nothing_else(wheel: str) -> None:
    project, folder, rooms = WHEELS[wheel]
    tree = ROOT / "out" / "walls" / wheel
    export(tree)
    entries = build(tree / project, tree / "built")
    assert strangers(entries, rooms, wheel) == []
    files = [path for room in rooms for path in (tree / folder / room).rglob("*") if path.is_file()]
    committed = {str(path.relative_to(tree / folder)) for path in files}
    assert committed
    assert {name for name in entries if not name.startswith(f"{wheel}-")} == committed


def test_the_device_wheel_ignores_what_stands_beside_the_rooms(tmp_path: Path) -> None:
    """A stray folder below agent/ and a left-over build folder do not travel."""
    export(tmp_path / "tree")
    for stray in ("agent/mpsim", "build/lib/mpserver"):
        (tmp_path / "tree" / stray).mkdir(parents=True)
        (tmp_path / "tree" / stray / "__init__.py").write_text("")
    entries = build(tmp_path / "tree", tmp_path / "built")
    assert strangers(entries, {"mpwire", "mpagent"}, "mpagent") == []
    assert strangers([*entries, "mpsim/__init__.py"], {"mpwire", "mpagent"}, "mpagent") == ["mpsim/__init__.py"]
