"""P7 on the device: the power fails before and after every touch of disk, link and chip."""

import random
from collections.abc import Iterator
from itertools import count

import pytest

from mpagent.enrollment import STORY
from mpagent.hal.software import SealedKeyring
from mpagent.record import Record, Stage
from mpagent.runner import Parts, run
from mpsim.shelf import MemoryShelf
from mpwire.limits import CHALLENGE_LIFE_S
from tests.line import Factory, Oem
from tests.power.aftermath import check_finished, check_ledger
from tests.power.plug import PluggedDevice, Runner, plug_in

SLICES = 4
"""The sweep is cut in slices, so that two processes share it."""
PAIRS = 150
NIGHT_S = CHALLENGE_LIFE_S + 1
SEED = 7


def sweep(factory: Factory, first: int = 1, step: int = 1) -> Iterator[PluggedDevice]:
    """Fresh boards, cut at touch `first`, the next one `step` later; ends with the first that lives to the end."""
    for pull_at in count(first, step):
        device = plug_in(factory.board())
        finished = device.live(pull_at)
        yield device
        if finished:
            return


def list_touches(factory: Factory) -> list[str]:
    """What an enrollment touches when nothing is cut."""
    device = plug_in(factory.board())
    plug = device.plug
    with device.power() as board:
        run(device.parts(board))
    return plug.touches


def test_every_kind_of_touch_is_cut(factory: Factory) -> None:
    """The sweeps below mean something: files, the line and the chip are all on the plug, on both sides of each."""
    touches = list_touches(factory)

    for verb in ("ask", "attest", "seal", "unseal", "write record-a", "write record-b", "write vault/gen-000001"):
        assert f"{verb}:before" in touches and f"{verb}:after" in touches, verb
    assert touches.count("ask:before") == 3
    assert sum(one.startswith("write shelf/") and one.endswith(":half") for one in touches) == 4
    assert len(touches) > 90


@pytest.mark.parametrize("first", range(1, SLICES + 1))
def test_power_cut_at_any_touch_is_finished_by_the_next_start(factory: Factory, oem: Oem, first: int) -> None:
    boards = 0
    for device in sweep(factory, first, SLICES):
        assert device.live(None)
        check_finished(oem, device)
        boards += 1

    assert boards > 20
    assert oem.granted() == oem.count("units") == oem.count("grants") == boards
    assert check_ledger(oem).closed == boards


def test_power_cut_before_a_long_night_is_finished_in_the_morning(factory: Factory, oem: Oem) -> None:
    """The challenge has expired: the board begins anew with the same keys, and is counted once all the same."""
    boards = begun_anew = 0
    for device in sweep(factory):
        oem.clock.pass_by(NIGHT_S)
        assert device.live(None)
        expired = [line for line in oem.log if line.startswith("challenge-expired")]
        assert oem.log == expired and len(expired) <= 1
        oem.log.clear()
        check_finished(oem, device, nights=1)
        boards += 1
        begun_anew += len(expired)

    assert begun_anew >= 2
    assert oem.granted() == oem.count("units") == oem.count("grants") == boards


@pytest.mark.parametrize("seed", range(SLICES))
def test_power_cut_again_while_finishing(factory: Factory, oem: Oem, seed: int) -> None:
    """Two cuts, each anywhere; a seeded sample of all pairs."""
    draw = random.Random(SEED + seed)
    touches = len(list_touches(factory))
    cut_twice = 0
    for _ in range(PAIRS // SLICES):
        device = plug_in(factory.board())
        first = not device.live(draw.randint(1, touches))
        second = not device.live(draw.randint(1, touches))
        cut_twice += first and second
        assert device.live(None)
        check_finished(oem, device)

    assert cut_twice > PAIRS // SLICES // 3
    assert oem.granted() == oem.count("units") == oem.count("grants") == PAIRS // SLICES + 1
    check_ledger(oem)


def test_power_cut_at_every_touch_in_a_row(factory: Factory, oem: Oem) -> None:
    """One board whose power fails again and again, each time a touch later than in the start before."""
    device = plug_in(factory.board())
    starts = 1
    while not device.live(starts):
        starts += 1

    check_finished(oem, device)
    assert starts > 10 and oem.granted() == 1


def test_power_cut_while_a_finished_board_unseals_changes_nothing(factory: Factory, oem: Oem) -> None:
    device = plug_in(factory.board())
    assert device.live(None)
    before, secrets, heard = device.record(), device.secrets(), len(device.line.heard)

    for pull_at in count(1):
        finished = device.live(pull_at)
        assert (device.record(), device.secrets(), len(device.line.heard)) == (before, secrets, heard)
        if finished:
            break

    assert pull_at > 10
    check_finished(oem, device)


def test_power_cut_while_a_lost_journal_is_found_again(factory: Factory, oem: Oem) -> None:
    """Both records were lost after Closed: the intact vault is adopted, through any cut, with the values it had."""
    boards = 0
    for pull_at in count(1, 3):
        boards += 1
        device = plug_in(factory.board())
        assert device.live(None)
        secrets = device.secrets()
        for name in ("record-a", "record-b"):
            device.disk.remove(name)

        finished = device.live(pull_at)

        assert device.live(None)
        assert device.secrets() == secrets
        assert device.disk.names("vault") == ("gen-000001",)
        if finished:
            break
    assert oem.log == [] and oem.count("alarms") == 0
    assert boards > 15
    assert oem.granted() == oem.count("grants") == boards


def run_speaking_first(parts: Parts) -> Record:
    """The runner's loop with one line out of place: it says the outbox before it is durable."""
    record = parts.journal.load()
    heard = parts.link.ask(record.outbox) if record.outbox is not None else None
    while record.stage is not Stage.DONE:
        record = STORY[record.stage](record, heard, parts.tools)
        heard = parts.link.ask(record.outbox) if record.outbox is not None else None
        parts.journal.save(record)
    return record


def test_this_harness_catches_a_runner_that_speaks_before_it_saves(factory: Factory) -> None:
    """Without a cut it looks right; the sweep finds boards that said two things, and a Grant that was made twice."""
    honest = plug_in(factory.board(), runner=run_speaking_first)
    assert honest.live(None)
    check_finished(factory.oem, honest)

    faults = find_faults(factory, run_speaking_first)
    assert any("two different Proofs" in fault for fault in faults)


def run_keeping_keys_in_memory(parts: Parts) -> Record:
    """The runner over a keyring that makes its keys but never stores them."""
    tools = parts.tools
    forgetful = SealedKeyring(tools.board.sealer, MemoryShelf())
    board = type(tools.board)(tools.board.soc, tools.board.attester, tools.board.sealer, forgetful)
    tools = type(tools)(board, tools.vault, tools.image, tools.random, tools.agent_version, tools.progress)
    return run(Parts(parts.journal, parts.link, parts.latch, tools, parts.discard_others))


def test_this_harness_catches_keys_that_do_not_survive(factory: Factory) -> None:
    """After a cut such a board cannot open what was granted to the key it lost."""
    honest = plug_in(factory.board(), runner=run_keeping_keys_in_memory)
    assert honest.live(None)
    check_finished(factory.oem, honest)

    faults = find_faults(factory, run_keeping_keys_in_memory)
    assert set(faults) == {"hpke-open"}


def find_faults(factory: Factory, runner: Runner) -> list[str]:
    """What went wrong with boards of a whole sweep under this runner."""
    faults = []
    for pull_at in count(1):
        device = plug_in(factory.board(), runner=runner)
        finished = device.live(pull_at)
        try:
            device.live(None)
            check_finished(factory.oem, device)
        except Exception as error:  # AssertionError of the check, or whatever the wrong runner ran into
            faults.append(str(error))
        factory.oem.log.clear()
        if finished:
            return faults
    raise AssertionError("a sweep ends")
