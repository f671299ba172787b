"""Somebody edits the state partition: swaps, changes, removes or restores what lies there, with right checksums."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mpagent.durable import TRAILER_BYTES
from mpagent.errors import StorageBroke, Tampered
from mpagent.journal import FILES
from mpagent.record import RECORD, RECORD_MAX_BYTES, Record, Stage
from mpagent.vault import GENERATION, VAULT_MAX_BYTES, Generation, SealedSlot
from tests.attacks.forge import prove
from tests.line import Device, Factory, Oem, ask_all

Edit = Callable[[Generation], Generation]


@pytest.fixture
def device(factory: Factory) -> Device:
    """A finished board."""
    made = factory.board()
    made.enroll()
    return made


def write_checked(path: Path, content: bytes) -> None:
    """As durable.py would: an editor with a disk image can compute a checksum too."""
    path.write_bytes(content + hashlib.sha256(content).digest())


def edit_vault(device: Device, edit: Edit) -> None:
    """Change the generation that counts."""
    path = device.disk.folder / "vault" / "gen-000001"
    found = GENERATION.decode(path.read_bytes()[:-TRAILER_BYTES], VAULT_MAX_BYTES)
    write_checked(path, GENERATION.encode(edit(found)))


def edit_record(device: Device, edit: Callable[[Record], Record]) -> None:
    """Change both copies of the record."""
    for name in FILES:
        path = device.disk.folder / name
        if path.exists():
            raw = path.read_bytes()[:-TRAILER_BYTES]
            write_checked(path, raw[:8] + RECORD.encode(edit(RECORD.decode(raw[8:], RECORD_MAX_BYTES))))


def swap_slots(found: Generation) -> Generation:
    first, second, *rest = found.slots
    return found._replace(slots=(first._replace(sealed=second.sealed), second._replace(sealed=first.sealed), *rest))


def drop_slot(found: Generation) -> Generation:
    return found._replace(slots=found.slots[1:])


def raise_version(found: Generation) -> Generation:
    return found._replace(slots=(found.slots[0]._replace(version=9), *found.slots[1:]))


def send_elsewhere(found: Generation) -> Generation:
    return found._replace(slots=(found.slots[0]._replace(destination="plain"), *found.slots[1:]))


def flip_slot(found: Generation) -> Generation:
    return found._replace(slots=(flip(found.slots[0]), *found.slots[1:]))


def flip(slot: SealedSlot) -> SealedSlot:
    return slot._replace(sealed=slot.sealed[:-1] + bytes([slot.sealed[-1] ^ 1]))


@pytest.mark.parametrize("edit", [swap_slots, drop_slot, raise_version, send_elsewhere, flip_slot])
def test_edited_slot_file_latches(device: Device, oem: Oem, edit: Edit) -> None:
    """T-170 Edited vault: slots swapped, dropped, renumbered, sent elsewhere or flipped, under a right checksum."""
    asked = len(device.line.heard)
    edit_vault(device, edit)

    with pytest.raises(Tampered):
        device.enroll()

    assert (device.disk.folder / "latch").exists()
    assert list((device.disk.folder / "vault").glob("gen-000001.damaged-*"))
    assert len(device.line.heard) == asked and oem.granted() == 1


def test_swapped_vault_generations_latch(device: Device) -> None:
    """T-171 Rollback: another generation of the same board under the name that the record gives."""
    record = device.record()
    assert record.ueid is not None
    with device.power() as board:
        vault = device.parts(board).tools.vault
        slots = vault.read(record.ueid, 1)
        vault.write(record.ueid, slots, above=1)
    folder = device.disk.folder / "vault"
    (folder / "gen-000002").replace(folder / "gen-000001")

    with pytest.raises(Tampered, match="generation"):
        device.enroll()

    with pytest.raises(Tampered, match="latched by an earlier run"):
        device.enroll()


def test_record_that_says_done_too_early_does_not_pass(factory: Factory, oem: Oem) -> None:
    """T-172 Faked pass: a record edited to "done" on a board that sealed nothing; PASS needs a live unseal."""
    device = factory.board()
    prove(device)
    edit_record(device, lambda record: record._replace(stage=Stage.DONE, outbox=None, generation=1, closed=b"\x00"))

    with pytest.raises(Tampered, match="gone"):
        device.enroll()

    assert oem.granted() == 0


def test_record_pointed_at_another_generation_does_not_pass(device: Device) -> None:
    """T-173 Faked pass: the record names a generation that is not there."""
    edit_record(device, lambda record: record._replace(generation=7))

    with pytest.raises(Tampered):
        device.enroll()


def test_latch_outlives_a_repair(device: Device, factory: Factory) -> None:
    """T-174 Cover-up: the thief puts the right vault back after he was noticed; the board stays latched."""
    path = device.disk.folder / "vault" / "gen-000001"
    right = path.read_bytes()
    edit_vault(device, flip_slot)
    with pytest.raises(Tampered):
        device.enroll()
    path.write_bytes(right)

    with pytest.raises(Tampered, match="latched by an earlier run"):
        device.enroll()

    (device.disk.folder / "latch").write_bytes(b"nonsense")
    with pytest.raises(Tampered, match="latched by an earlier run"):
        device.enroll()


def test_damaged_journal_makes_no_second_unit(device: Device, oem: Oem) -> None:
    """T-175 Damage: both records are garbage: set aside, told, and the same unit again with the same keys."""
    secrets = device.secrets()
    for name in FILES:
        (device.disk.folder / name).write_bytes(b"\xff" * 200)

    assert device.enroll().stage is Stage.DONE

    assert device.secrets() == secrets and oem.granted() == 1 and oem.count("units") == 1
    assert sorted(path.name for path in device.disk.folder.glob("*.damaged-*")) == [
        f"{name}.damaged-1" for name in FILES
    ]
    assert sum("set aside" in line for line in device.said) == 2


@pytest.mark.parametrize("blob", ["sealed-key-sign", "sealed-key-kem", "sealed-keyring-dek"])
def test_edited_device_key_is_never_replaced(factory: Factory, oem: Oem, blob: str) -> None:
    """T-176 Denial: a damaged key file must not become a new key, which the issuer would call a clone."""
    device = factory.board()
    ask_all(device, "greeted")
    prove(device)
    path = device.disk.folder / "shelf" / blob
    raw = path.read_bytes()
    before = oem.state()
    path.write_bytes(raw[:20] + bytes([raw[20] ^ 1]) + raw[21:])

    with pytest.raises(Tampered):
        ask_again(device)

    assert oem.state() == before and oem.alarms() == []
    assert path.with_name(f"{blob}.damaged-1").exists()


def ask_again(device: Device) -> None:
    """The board loses its record and has to make its Proof anew."""
    for name in FILES:
        (device.disk.folder / name).unlink(missing_ok=True)
    device.enroll()


def test_removed_key_of_the_keyring_is_tampering(factory: Factory, oem: Oem) -> None:
    """T-177 Denial: the key that opens the device keys is gone; none is made anew over them."""
    device = factory.board()
    prove(device)
    (device.disk.folder / "shelf" / "sealed-keyring-dek").unlink()

    with pytest.raises(Tampered, match="gone"):
        ask_again(device)

    assert not (device.disk.folder / "shelf" / "sealed-keyring-dek").exists()
    assert oem.granted() == 0


@pytest.mark.parametrize("name", ["record-a", "latch", "vault/gen-000001"])
def test_planted_link_is_not_followed(device: Device, tmp_path: Path, name: str) -> None:
    """T-178 Planted link: a file of the state partition points at something else on the machine."""
    target = tmp_path / "elsewhere"
    target.write_bytes(b"not ours")
    path = device.disk.folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(target)

    with pytest.raises((StorageBroke, Tampered)):
        device.enroll()

    assert target.read_bytes() == b"not ours"


def test_vault_of_a_part_that_was_opened_again_stays_shut(device: Device, factory: Factory) -> None:
    """T-179 Life cycle: what was sealed closed does not open on the same chip once its boot is open."""
    boot = device.folder / "chip" / "boot.json"
    opened = factory.board(closed=False)
    closed = boot.read_bytes()
    boot.write_bytes((opened.folder / "chip" / "boot.json").read_bytes())

    with pytest.raises(Exception) as caught:
        device.enroll()
    assert caught.type.__name__ == "NotMine"

    boot.write_bytes(closed)
    assert device.enroll().stage is Stage.DONE
