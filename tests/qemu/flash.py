"""Writes files into the image of an ext4 file system, without mounting it: as root's, by debugfs of e2fsprogs."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

_DEBUGFS: Final = "/usr/sbin/debugfs"
PROGRAM: Final = 0o755
PLAIN: Final = 0o644


def write_files(disk: Path, files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> None:
    """Files by absolute path, programs where they begin with #!, and symbolic links by theirs. Replaces what is there.

    Raises RuntimeError when one of them is not in the disk afterwards: debugfs tells a failure and still ends with 0.
    """
    with tempfile.TemporaryDirectory(prefix="mpflash-") as folder:
        lines: list[str] = []
        for number, (path, content) in enumerate(files.items()):
            source = Path(folder) / str(number)
            raw = _encode(content)
            source.write_bytes(raw)
            mode = PROGRAM if raw.startswith(b"#!") else PLAIN
            name = PurePosixPath(path).name
            lines += [
                *_enter(path),
                f"rm {name}",
                f"write {source} {name}",
                f"set_inode_field {name} mode 0100{mode:o}",
            ]
        for path, target in (links or {}).items():
            lines += [*_enter(path), f"symlink {PurePosixPath(path).name} {target}"]
        said = _debugfs(disk, lines, Path(folder) / "commands")
    wanted = {path: f"Mode:  0{_mode_of(_encode(content)):o}" for path, content in files.items()}
    for path, mark in {**wanted, **dict.fromkeys(links or {}, "Type: symlink")}.items():
        if mark not in _show(disk, f"stat {path}"):
            raise RuntimeError(f"{path} is not in the disk:\n{said}")


def _encode(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _mode_of(raw: bytes) -> int:
    return PROGRAM if raw.startswith(b"#!") else PLAIN


def _enter(path: str) -> list[str]:
    """Into the folder of the file, made where it is missing: mkdir complains about one that is there, and goes on."""
    folder = PurePosixPath(path).parent
    made = [str(one) for one in (*reversed(folder.parents), folder) if str(one) != "/"]
    return [*(f"mkdir {one}" for one in made), f"cd {folder}"]


def _debugfs(disk: Path, lines: list[str], commands: Path) -> str:
    commands.write_text("".join(f"{line}\n" for line in lines))
    done = subprocess.run([_DEBUGFS, "-w", "-f", str(commands), str(disk)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _show(disk: Path, request: str) -> str:
    return subprocess.run([_DEBUGFS, "-R", request, str(disk)], capture_output=True, text=True, check=True).stdout
