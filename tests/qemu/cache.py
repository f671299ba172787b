"""What is dear to build and keyed by its content: under the user's cache folder, outside the checkout.

An entry appears by one rename when it is whole, so a build that was cut short never counts. Two builders wait for one
another. Nothing is ever skipped: what is missing is built.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

KEY_DIGITS: Final = 16


def cache_folder() -> Path:
    """Made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mpagent-qemu"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key_of(*parts: str | Path | Iterable[Path]) -> str:
    """Digest of texts and of files' contents."""
    digest = sha256()
    for part in parts:
        files = [part] if isinstance(part, Path) else [] if isinstance(part, str) else list(part)
        for content in [part.encode()] if isinstance(part, str) else [file.read_bytes() for file in files]:
            digest.update(sha256(content).digest())
    return digest.hexdigest()[:KEY_DIGITS]


def find_or_build(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Folder of this kind and key; `build` fills a fresh one where there is none yet."""
    folder = cache_folder() / f"{kind}-{key}"
    if folder.is_dir():
        return folder
    with _locked(kind):
        if not folder.is_dir():
            _build_aside(folder, build)
    return folder


def _build_aside(folder: Path, build: Callable[[Path], None]) -> None:
    print(f"building {folder}", flush=True)
    began = time.monotonic()
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(aside)
        aside.chmod(0o755)
        os.sync()
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    print(f"built {folder.name} in {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _locked(kind: str) -> Iterator[None]:
    with open(cache_folder() / f"{kind}.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another builder of {kind}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in cache_folder().glob(f".{kind}-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield
