"""The NV counter: deleted, planted, exchanged, cut in the middle, worn no more than it must be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.errors import HardwareGone, Tampered
from mpagent.hal.tpm import TpmParts, open_tpm
from mpagent.hal.tpm.counter import COUNTER_INDEX, RAISE_MAX, TpmCounter
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm

INDEX = f"0x{COUNTER_INDEX:08X}"
OURS = "nt=counter|authread|authwrite|ownerread|no_da"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


@pytest.fixture
def parts(tpm: SoftTpm) -> Iterator[TpmParts]:
    with open_tpm(tpm.tcti, MemoryShelf()) as opened:
        yield opened


def list_indices(tpm: SoftTpm) -> set[int]:
    lines = tpm.use_tool("tpm2_getcap", "handles-nv-index").decode().split("\n")
    return {int(line.removeprefix("- "), 0) for line in lines if line}


def test_index_lies_where_owners_may_have_theirs_and_is_made_at_the_first_read(tpm: SoftTpm) -> None:
    assert 0x01800000 <= COUNTER_INDEX <= 0x01BFFFFF
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert COUNTER_INDEX not in list_indices(tpm)
        parts.counter.read()
    assert COUNTER_INDEX in list_indices(tpm)
    told = tpm.use_tool("tpm2_nvreadpublic", INDEX).decode()
    assert "friendly: authwrite|nt=0x1|ownerread|authread|no_da|written\n" in told  # 1: a counter


def test_deleted_and_made_anew_it_stands_above_all_that_was(tpm: SoftTpm) -> None:
    """T-285 Deleted counter: the owner's password is empty, so anybody may; no old disk fits again."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        first = parts.counter.read()
        parts.counter.raise_to(first + 5)
    seen = {first + step for step in range(6)}
    for _ in range(3):
        tpm.use_tool("tpm2_nvundefine", INDEX, "-C", "o")
        tpm.power_cycle()
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            value = parts.counter.read()
            assert value > max(seen)
            parts.counter.raise_to(value + 1)
        seen |= {value, value + 1}


def test_cleared_tpm_does_not_begin_anew(tpm: SoftTpm) -> None:
    """T-285 Deleted counter: TPM2_Clear by the platform removes the index, and not the height it had."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        parts.counter.raise_to(parts.counter.read() + 4)
        height = parts.counter.read()
    tpm.use_tool("tpm2_clear", "-c", "p")
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert parts.counter.read() > height


@pytest.mark.parametrize(
    "attributes",
    [
        "authread|authwrite|ownerread|no_da",
        "nt=bits|authread|authwrite|ownerread|no_da",
        f"{OURS}|orderly",
        f"{OURS}|writedefine",
        "nt=counter|authread|authwrite|ownerread",
    ],
)
def test_index_that_is_no_counter_of_ours_is_named_and_left_alone(tpm: SoftTpm, attributes: str) -> None:
    """T-286 Planted counter: an index that can be written to the old value, or jumps, in the place of ours."""
    tpm.use_tool("tpm2_nvdefine", INDEX, "-C", "o", "-s", "8", "-a", attributes)
    before = tpm.use_tool("tpm2_nvreadpublic", INDEX)
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        for _ in range(2):
            with pytest.raises(HardwareGone, match=f"{INDEX} is no counter of ours") as gone:
                parts.counter.read()
            assert f"tpm2_nvundefine {INDEX}" in gone.value.advice
            with pytest.raises(HardwareGone, match="no counter of ours"):
                parts.counter.raise_to(1)
    assert tpm.use_tool("tpm2_nvreadpublic", INDEX) == before


def test_counter_exchanged_while_the_agent_runs_is_noticed(tpm: SoftTpm, parts: TpmParts) -> None:
    """T-286 Planted counter: after it was checked, another index with the old value takes its place."""
    old = parts.counter.read()
    parts.counter.raise_to(old + 1)
    tpm.use_tool("tpm2_nvundefine", INDEX, "-C", "o")
    tpm.use_tool("tpm2_nvdefine", INDEX, "-C", "o", "-s", "8", "-a", "authread|authwrite|ownerread|no_da")
    file = Path(f"{tpm.tcti.split('=')[1]}.planted")
    file.write_bytes(old.to_bytes(8, "big"))
    tpm.use_tool("tpm2_nvwrite", INDEX, "-i", str(file))
    with pytest.raises(HardwareGone, match="exchanged"):
        parts.counter.read()


def test_power_cut_between_definition_and_first_count_is_finished(tpm: SoftTpm) -> None:
    tpm.use_tool("tpm2_nvdefine", INDEX, "-C", "o", "-s", "8", "-a", OURS)
    tpm.power_cycle()
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        value = parts.counter.read()
        parts.counter.raise_to(value + 1)
        assert parts.counter.read() == value + 1


def test_value_far_above_is_refused_before_anything_is_counted(parts: TpmParts) -> None:
    """T-287 Worn flash: an edited record that names generation 999999 does not have the TPM count up to it."""
    before = parts.counter.read()
    for value in (before + RAISE_MAX + 1, 999_999, 2**63):
        with pytest.raises(Tampered, match=f"asks for {value}, and the TPM's counter stands at {before}"):
            parts.counter.raise_to(value)
    assert parts.counter.read() == before
    parts.counter.raise_to(before + RAISE_MAX)
    assert parts.counter.read() == before + RAISE_MAX


def test_ten_power_cuts_cost_no_count_and_no_lockout(tpm: SoftTpm) -> None:
    """An orderly counter would jump at each cut; one under dictionary-attack protection would lock the TPM."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        value = parts.counter.read()
    for step in range(1, 11):
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            parts.counter.raise_to(value + step)
            tpm.power_cycle()
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        assert parts.counter.read() == value + 10
    lines = tpm.use_tool("tpm2_getcap", "properties-variable").decode().split("\n")
    assert [int(line.split(":")[1], 0) for line in lines if line.startswith("TPM2_PT_LOCKOUT_COUNTER")] == [0]


def test_owner_password_is_named(tpm: SoftTpm, parts: TpmParts) -> None:
    tpm.use_tool("tpm2_changeauth", "-c", "owner", "secret")
    with pytest.raises(HardwareGone, match="hierarchy is taken"):
        parts.counter.read()


class StuckCounter(TpmCounter):
    """A TPM that takes TPM2_NV_Increment and does not count."""

    stuck_at = 0

    def _read(self, index: object) -> int:
        super()._read(index)
        return self.stuck_at


def test_counter_that_does_not_count_is_broken(parts: TpmParts) -> None:
    counter = StuckCounter(parts.chip)
    parts.counter.read()
    counter.stuck_at = 7
    with pytest.raises(HardwareGone, match="does not count"):
        counter.raise_to(8)
