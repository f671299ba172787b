"""Secrets at rest: worn flash, swapped files, a restored old disk, a chip that lies, cuts between any two steps."""

import os
import shutil
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.errors import HardwareGone, NotMine, StorageBroke, Tampered
from mpagent.hal.ports import Sealer
from mpagent.slots import VaultSlot
from mpagent.vault import GENERATION, VAULT_MAX_BYTES, Vault, load_generation
from mpsim.backend import open_sealer
from mpsim.board import BoardPlan, make_board
from mpsim.counter import SoftCounter
from mpsim.faults import Fault, script
from mpwire.secret import Secret

UEID = b"\x01" + bytes(32)
SLOTS = (
    VaultSlot("disk", "local", "sealed", 1, Secret(b"the disk key of this board......")),
    VaultSlot("odd/../name", "static", "plain", 7, Secret(b"")),
    VaultSlot("big", "random", "credential", 2, Secret(os.urandom(32_768))),
)


class PowerCut(BaseException):
    """The plug was pulled."""


class CutDisk(Disk):
    """A disk that loses power before or after its n-th write or removal."""

    def __init__(self, folder: Path, cut_at: int) -> None:
        super().__init__(folder)
        self.left = cut_at

    def _touch(self) -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= 1

    def write(self, name: str, content: bytes) -> None:
        self._touch()
        super().write(name, content)
        self._touch()

    def remove(self, name: str) -> None:
        self._touch()
        super().remove(name)
        self._touch()


@pytest.fixture
def board(tmp_path: Path) -> Path:
    make_board(tmp_path / "board", BoardPlan(closed=True))
    return tmp_path / "board/chip"


@pytest.fixture
def sealer(board: Path) -> Sealer:
    return open_sealer(board)


def make_vault(folder: Path, sealer: Sealer, counter: SoftCounter | None = None) -> Vault:
    return Vault(Disk(folder), sealer, counter, os.urandom)


def list_vault(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "vault").iterdir())


def test_every_slot_comes_back_and_no_secret_lies_on_disk(tmp_path: Path, sealer: Sealer) -> None:
    vault = make_vault(tmp_path / "state", sealer)
    assert vault.write(UEID, SLOTS, above=0) == 1
    assert make_vault(tmp_path / "state", sealer).read(UEID, 1) == SLOTS
    raw = (tmp_path / "state/vault/gen-000001").read_bytes()
    assert all(one.value.reveal() not in raw for one in SLOTS if len(one.value))
    assert vault.rollback == "none"


@pytest.mark.parametrize("where", [0, 40, 80, 120, 500, 20_000, -70, -1])
def test_damaged_vault_is_set_aside_and_called_tampering(tmp_path: Path, sealer: Sealer, where: int) -> None:
    vault = make_vault(tmp_path, sealer)
    vault.write(UEID, SLOTS, above=0)
    path = tmp_path / "vault/gen-000001"
    raw = bytearray(path.read_bytes())
    raw[where] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(Tampered, match=r"set aside as gen-000001\.damaged-1"):
        vault.read(UEID, 1)
    assert list_vault(tmp_path) == ["gen-000001.damaged-1"]
    with pytest.raises(Tampered, match="is gone"):
        vault.read(UEID, 1)
    assert vault.find_latest() == 0


def rewrite(folder: Path, **changed: object) -> None:
    """A thief who knows the format: whole file, right checksum."""

    disk = Disk(folder)
    found = load_generation(disk, 1)
    assert found is not None
    disk.write("vault/gen-000001", GENERATION.encode(found._replace(**changed)))  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", ["drop", "swap", "rename", "version", "destination", "older-tag"])
def test_altered_table_with_a_right_checksum_is_tampering(tmp_path: Path, sealer: Sealer, attack: str) -> None:

    vault = make_vault(tmp_path, sealer)
    vault.write(UEID, SLOTS, above=0)
    found = load_generation(Disk(tmp_path), 1)
    assert found is not None
    first, second, third = found.slots
    slots = {
        "drop": (first, second),
        "swap": (second, first, third),
        "rename": (first._replace(name="cloud"), second, third),
        "version": (first._replace(version=9), second, third),
        "destination": (first._replace(destination="plain"), second, third),
        "older-tag": found.slots,
    }[attack]
    rewrite(tmp_path, slots=slots, tag=bytes(28) if attack == "older-tag" else found.tag)
    with pytest.raises(Tampered, match="does not open under its key"):
        vault.read(UEID, 1)


def test_vault_of_another_board_is_not_taken(tmp_path: Path, sealer: Sealer) -> None:
    vault = make_vault(tmp_path, sealer)
    vault.write(UEID, SLOTS, above=0)
    with pytest.raises(Tampered, match="another board"):
        vault.read(b"\x01" + b"\x22" * 32, 1)


def test_vault_on_another_chip_is_not_mine(tmp_path: Path, sealer: Sealer) -> None:
    """T: a cloned disk whose record was forged to name the other chip."""
    make_vault(tmp_path / "state", sealer).write(UEID, SLOTS, above=0)
    make_board(tmp_path / "other", BoardPlan(closed=True))
    with pytest.raises(NotMine):
        make_vault(tmp_path / "state", open_sealer(tmp_path / "other/chip")).read(UEID, 1)
    assert list_vault(tmp_path / "state") == ["gen-000001"]  # whole, and untouched for its own chip


def test_sealer_that_spoils_its_blob_is_a_broken_chip_not_tampering(
    tmp_path: Path, board: Path, sealer: Sealer
) -> None:
    script(board, "seal", [Fault.FLIP])
    vault = make_vault(tmp_path / "state", sealer)
    with pytest.raises(HardwareGone, match="does not open what it has just sealed"):
        vault.write(UEID, SLOTS, above=0)
    assert vault.write(UEID, SLOTS, above=0) == 1
    assert vault.read(UEID, 1) == SLOTS


def test_disk_that_gives_back_something_else_is_not_called_sealed(tmp_path: Path, sealer: Sealer) -> None:
    """P6: a receipt may only follow what was read back."""

    class LyingDisk(Disk):
        def read(self, name: str, high: int) -> bytes | None:
            raw = super().read(name, high)
            return raw[:-1] + bytes([raw[-1] ^ 1]) if raw is not None else None

    with pytest.raises(StorageBroke, match="does not give back"):
        Vault(LyingDisk(tmp_path), sealer, None, os.urandom).write(UEID, SLOTS, above=0)


def test_restored_old_disk_is_noticed_by_the_counter(tmp_path: Path, sealer: Sealer) -> None:
    """T: rollback: yesterday's disk image on today's chip."""
    counter = SoftCounter()
    vault = make_vault(tmp_path, sealer, counter)
    first = vault.write(UEID, SLOTS, above=0)
    old = (tmp_path / "vault/gen-000001").read_bytes()
    second = vault.write(UEID, SLOTS[:1], above=first)
    vault.discard_others(second)
    assert vault.read(UEID, second) == SLOTS[:1]
    (tmp_path / "vault/gen-000001").write_bytes(old)
    with pytest.raises(Tampered, match="not the one the board's soft names"):
        vault.read(UEID, first)


def test_counter_raised_before_a_cut_does_not_lock_the_board_out(tmp_path: Path, sealer: Sealer) -> None:
    counter = SoftCounter()
    make_vault(tmp_path, sealer, counter).write(UEID, SLOTS, above=0)  # the record that names 1 was never saved
    vault = make_vault(tmp_path, sealer, counter)
    number = vault.write(UEID, SLOTS, above=0)
    vault.discard_others(number)
    assert vault.read(UEID, number) == SLOTS
    assert list_vault(tmp_path) == [f"gen-{number:06d}"]


@pytest.mark.parametrize("cut_at", range(6))
def test_power_cut_between_any_two_steps_leaves_the_recorded_generation_whole(
    tmp_path: Path, sealer: Sealer, cut_at: int
) -> None:
    """P7: an upgrade from generation 1 to 2, cut before and after each touch of the disk."""
    make_vault(tmp_path, sealer).write(UEID, SLOTS, above=0)
    recorded = 1
    vault = Vault(CutDisk(tmp_path, cut_at), sealer, None, os.urandom)
    try:
        recorded = vault.write(UEID, SLOTS[:2], above=1)
        vault.discard_others(recorded)
    except PowerCut:
        pass
    disk = Disk(tmp_path)
    disk.prepare()
    after = Vault(disk, sealer, None, os.urandom)
    after.discard_others(recorded)
    assert after.read(UEID, recorded) == (SLOTS if recorded == 1 else SLOTS[:2])
    assert list_vault(tmp_path) == [f"gen-{recorded:06d}"]


def test_largest_grant_and_local_slots_fit(tmp_path: Path, sealer: Sealer) -> None:
    slots = tuple(VaultSlot(f"{n:064d}", "local", "credential", 2**62, Secret(bytes(32_768))) for n in range(64))
    vault = make_vault(tmp_path, sealer)
    assert vault.read(UEID, vault.write(UEID, slots, above=0)) == slots
    assert (tmp_path / "vault/gen-000001").stat().st_size <= VAULT_MAX_BYTES


def test_facts_lie_beside_the_slots_and_are_no_slot(tmp_path: Path, sealer: Sealer) -> None:
    vault = make_vault(tmp_path, sealer)
    facts = Secret(b"facts" * 100)
    number = vault.write(UEID, SLOTS, above=0, facts=facts)
    assert vault.read(UEID, number) == SLOTS
    opened = vault.unlock(UEID, number)
    assert opened.read_facts() == facts and set(opened.names) == {one.name for one in SLOTS}
    assert b"factsfacts" not in (tmp_path / "vault/gen-000001").read_bytes()
    assert vault.unlock(UEID, vault.write(UEID, SLOTS, above=number)).read_facts() is None
    with pytest.raises(ValueError, match="facts of"):
        vault.write(UEID, SLOTS, above=0, facts=Secret(bytes(40_000)))


def test_generation_that_counts_where_record_and_counter_differ(tmp_path: Path, sealer: Sealer) -> None:
    """A record may be lost or a step behind; the counter never is ahead of what was read back."""
    plain = make_vault(tmp_path / "plain", sealer)
    assert plain.find_standing(0) == 0
    plain.write(UEID, SLOTS, above=0)
    assert (plain.find_standing(0), plain.find_standing(1)) == (1, 1)
    plain.write(UEID, SLOTS, above=1)
    assert plain.find_standing(1) == 1  # without a counter the record's word counts

    counter = SoftCounter()
    vault = make_vault(tmp_path / "counted", sealer, counter)
    counter.raise_to(7)  # a TPM starts above whatever it ever counted
    assert vault.find_standing(0) == 0 and vault.find_next(0) == 8
    first = vault.write(UEID, SLOTS, above=0)
    assert (first, vault.find_standing(0), vault.find_standing(8)) == (8, 8, 8)
    shutil.copytree(tmp_path / "counted/vault", tmp_path / "old")
    assert vault.write(UEID, SLOTS, above=8) == 9 and vault.find_standing(8) == 9
    for name in ("gen-000009", "gen-000008"):
        (tmp_path / "counted/vault" / name).unlink()
    shutil.copytree(tmp_path / "old", tmp_path / "counted/vault", dirs_exist_ok=True)
    with pytest.raises(Tampered, match="older than the board's soft says"):
        vault.find_standing(0)
    assert vault.find_standing(8) == 8  # for `read` to refuse: the counter names another
    with pytest.raises(Tampered):
        vault.read(UEID, 8)


def test_generation_that_was_cut_before_it_counted_is_none(tmp_path: Path, sealer: Sealer) -> None:
    counter = SoftCounter()
    make_vault(tmp_path, sealer).write(UEID, SLOTS, above=0)
    assert make_vault(tmp_path, sealer, counter).find_standing(0) == 0
