"""A whole board in a folder: chip/ (silicon and boot firmware) and disk/ (its root file system).

Copying disk/ clones the disk, as a thief would; the chip stays where it is.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final

from mpsim import fuses, silicon, storage
from mpsim.silicon import Chip, Make
from mpwire.errors import MpError, Retry

DISK_FOLDERS: Final = ("usr/lib/mpagent", "etc/mpagent", "var/lib/mpagent")
DEFAULT_SRK_NAME: Final = "lab"
ORIGIN: Final = "simulated"
"""What a server must register such keys as; a production realm refuses them."""


class BoardRefused(MpError):
    """This board cannot be made here; nothing was written."""

    exit_code: ClassVar[int] = 73
    retry: ClassVar[Retry] = Retry.OPERATOR


@dataclass(frozen=True, slots=True)
class BoardPlan:
    """What to make. Nothing here is checked but by `make_board`."""

    part: str = "imx8mm"
    srk_hash: bytes = fuses.srk_hash_of(DEFAULT_SRK_NAME)
    uid: bytes | None = None
    """8 bytes, big-endian as printed; None: random."""
    closed: bool = False
    """Fuse blown and booted closed."""
    mpmr: str = "optee"
    unlock_mfg: bool = True
    revision: str | None = None
    """None: the first revision of the part on which manufacturing protection works."""


def make_board(folder: Path, plan: BoardPlan) -> None:
    """Make chip and empty disk. The folder appears whole or not at all.

    Raises BoardRefused when something is there already or the place cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BoardRefused(f"{folder} is there already and not empty")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise BoardRefused(f"cannot make {folder}: {error.strerror}") from error
    try:
        _fill(draft, plan)
        os.replace(draft, folder)
        storage.sync_folder(folder.parent)
    except OSError as error:
        raise BoardRefused(f"cannot make {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def close_fuse(chip: Path) -> None:
    """Blow SEC_CONFIG[1]. The running boot stays open until `power_cycle`; doing it twice changes nothing."""
    storage.put(chip / "nvmem", fuses.blow_closed(Chip(chip).read_fuses()))


def power_cycle(chip: Path) -> None:
    """Boot anew: what the fuses say now is what the boot latches."""
    storage.put_json(chip / "boot.json", {"closed": fuses.is_closed(Chip(chip).read_fuses())})


def show(chip: Path) -> dict[str, object]:
    """What an owner may know of a board. No private key, no master key, and no MP public key either: it may be a
    secret of its product (design: mp_use)."""
    silent = Chip(chip)
    make, content = silent.read_make(), silent.read_fuses()
    try:
        mp_key_id: str | None = hashlib.sha256(silent.mp_public_key()).hexdigest()
        mp_trouble = None
    except silicon.Refusal as refusal:
        mp_key_id, mp_trouble = None, str(refusal)
    return {
        **asdict(make),
        "serial_number": fuses.read_serial_number(make.part, content),
        "uid": fuses.read_uid(make.part, content).hex(),
        "srk_hash": fuses.read_srk_hash(content).hex(),
        "life_cycle": silent.life_cycle().name.lower().replace("_", "-"),
        "mp_key_id": mp_key_id,
        "mp_trouble": mp_trouble,
    }


def mp_key_record(part: str, srk_hash: bytes) -> dict[str, str]:
    """The registration record of a class key, as an OEM puts it into its server."""
    return _key_record(part, srk_hash, silicon.class_public_key(part, srk_hash))


def test_key_record(part: str, srk_hash: bytes) -> dict[str, str]:
    """The same for the key that open parts sign with: for a lab that takes open parts, or wants to name them."""
    return {**_key_record(part, srk_hash, silicon.test_public_key()), "use": "test"}


def _key_record(part: str, srk_hash: bytes, public: bytes) -> dict[str, str]:
    return {
        "part": part,
        "srk_hash": srk_hash.hex(),
        "mp_key_id": hashlib.sha256(public).hexdigest(),
        "public_key": public.hex(),
        "origin": ORIGIN,
        "profile": "raw",
    }


def _fill(draft: Path, plan: BoardPlan) -> None:
    chip = draft / "chip"
    chip.mkdir(mode=0o700)
    for name in DISK_FOLDERS:
        (draft / "disk" / name).mkdir(parents=True)
    draft.chmod(0o755)
    uid = plan.uid if plan.uid is not None else secrets.token_bytes(fuses.UID_BYTES)
    content = fuses.burn(plan.part, uid, secrets.token_bytes(fuses.UID_BYTES), plan.srk_hash)
    make = Make(plan.part, plan.revision or silicon.FIRST_GOOD_REVISION[plan.part], plan.mpmr, plan.unlock_mfg)
    storage.put(chip / "otpmk", secrets.token_bytes(silicon.MASTER_KEY_BYTES))
    storage.put_json(chip / "make.json", {"format": silicon.FORMAT, **asdict(make)})
    storage.put(chip / "nvmem", fuses.blow_closed(content) if plan.closed else content)
    power_cycle(chip)
