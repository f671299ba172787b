"""Progress is for people at a terminal: one line that moves on, and nothing at all in a pipe."""

import io
import sys

import pytest

from mpserver.progress import Progress

MIB = 1024 * 1024


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_that_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("sealing")
    for done in range(201):
        progress(done * MIB, 200 * MIB)
    said = terminal.getvalue()
    assert said.startswith("\rsealing   0 % of 200.0 MiB") and said.endswith("\rsealing 100 % of 200.0 MiB\n")
    assert said.count("\r") < 20 and said.count("\n") == 1


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_a_pipe_and_a_closed_stream_hear_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress("sealing")
    progress(200 * MIB, 200 * MIB)
    assert stream is None or stream.getvalue() == ""


def test_small_work_is_not_worth_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    Progress("sealing")(MIB, MIB)
    assert terminal.getvalue() == ""
