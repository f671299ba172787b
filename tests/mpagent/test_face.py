"""What an operator sees: on a screen, on a serial line, on a pipe, and what a text of a stranger does to it."""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from mpagent.face.letters import HEIGHT, write_large
from mpagent.face.screen import COLUMNS, LINES, Console, draw, render
from mpagent.face.show import has_blocks
from mpagent.standing import Standing, StandingFile, State, read_boot

from .test_cli import Counter, counter  # noqa: F401  # the fixture
from .test_qr import scan

UEID = "01" + "5ac3" * 16
SERIAL = "1a2b3c4d5e6f7788"
PASS = Standing(State.PASS, "done", "", "4 slots unsealed in this boot, ledger index 12", ueid=UEID, run="00" * 8)
FAIL = PASS._replace(
    state=State.FAIL, stage="proven", check="quota", text="the server refused: quota", next="the OEM raises the quota"
)
SCREEN = Console(blocks=True)
SERIAL_LINE = Console()
PIPE = Console(lines=None)


def show(standing: Standing | None, console: Console, serial: str = SERIAL) -> list[str]:
    return render(draw(standing, serial, console), console)


def read_blocks(lines: list[str]) -> list[list[bool]]:
    """The modules of a code in half blocks, taken from a picture of 80 columns."""
    code = [line.ljust(COLUMNS)[COLUMNS - 38 :] for line in lines]
    halves = {" ": (False, False), "▄": (False, True), "▀": (True, False), "█": (True, True)}
    rows: list[list[bool]] = []
    for line in code[:19]:
        pairs = [halves[one] for one in line]
        rows += [[above for above, _ in pairs], [below for _, below in pairs]]
    return rows


@pytest.mark.ceiling
def test_code_on_the_screen_is_the_name_of_the_board() -> None:
    rows = read_blocks(show(FAIL, SCREEN))
    dark = [(row, column) for row, line in enumerate(rows) for column, one in enumerate(line) if one]
    top, left = min(row for row, _ in dark), min(column for _, column in dark)
    assert top >= 4 and left >= 4, "the quiet zone"
    assert scan([line[left : left + 29] for line in rows[top : top + 29]]) == [f"UEID:{UEID.upper()}"]


@pytest.mark.ceiling
def test_code_of_a_pipe_and_of_a_board_without_a_name() -> None:
    wide = [line for line in show(PASS._replace(ueid=""), PIPE) if line.startswith("########") and len(line) >= 66]
    lines = show(PASS._replace(ueid=""), PIPE)
    code = [line.ljust(74) for line in lines[lines.index(wide[0]) :]][:37]
    rows = [[line[place : place + 2] == "  " for place in range(0, 74, 2)] for line in code]
    assert scan([row[4:33] for row in rows[4:33]]) == [f"SOC:{SERIAL.upper()}"]


@pytest.mark.parametrize("console", [SCREEN, SERIAL_LINE], ids=["screen", "serial"])
@pytest.mark.parametrize("standing", [PASS, FAIL, None, FAIL._replace(text="long " * 200, next="word" * 200)])
def test_picture_fits_80_by_24_and_names_the_board(console: Console, standing: Standing | None) -> None:
    lines = show(standing, console)
    assert len(lines) == LINES and max(map(len, lines)) <= COLUMNS
    assert len(lines[-1]) < COLUMNS, "a full last line would scroll"
    assert any(SERIAL in line for line in lines)
    if standing is not None:
        assert any(UEID in line for line in lines) and lines[-1].startswith("run 0000000000000000   stage ")


@pytest.mark.parametrize(("standing", "word"), [(PASS, "PASS"), (FAIL, "FAIL"), (None, "STOP")])
@pytest.mark.parametrize("console", [SCREEN, SERIAL_LINE, PIPE], ids=["screen", "serial", "pipe"])
def test_word_is_huge_and_plain_ascii(console: Console, standing: Standing | None, word: str) -> None:
    lines = show(standing, console)
    large = [one.rstrip() for one in write_large(word)]
    assert [line[: len(one)] for line, one in zip(lines[1:], large, strict=False)] == large
    assert len(large) == HEIGHT and max(map(len, large)) <= 40
    if not console.blocks:
        assert all(line.isascii() for line in lines)


def test_reason_and_next_step_are_there_whole() -> None:
    text = " ".join(line[:41].strip() for line in show(FAIL, SCREEN))
    assert "the server refused: quota Next: the OEM raises the quota (quota)" in text


@pytest.mark.parametrize("console", [Console(columns=40), Console(columns=20, lines=10), Console(columns=1, lines=1)])
def test_small_console_shows_what_has_room(console: Console) -> None:
    lines = show(FAIL, console)
    assert max(map(len, lines)) <= max(console.columns, 10)
    if console.columns >= 20:
        assert any("FAIL" in line or line.startswith("########") for line in lines)


def test_text_of_a_stranger_moves_no_cursor(tmp_path: Path) -> None:
    """T-500 Forged screen: a server's words reach the console of the line; they clear nothing and colour nothing."""
    evil = "\x1b[2J\x1b[1;1HPASS\r\n\x9b31m\x07\u202e\x00"
    StandingFile(tmp_path).write(FAIL._replace(text=evil, check=evil, next=evil, product=evil, boot=read_boot()))
    for standing in (StandingFile(tmp_path).read(), FAIL._replace(text=evil, check=evil, next=evil, product=evil)):
        for console in (SCREEN, SERIAL_LINE, PIPE):
            lines = show(standing, console, serial=evil)
            assert not [line for line in lines if not line.isprintable()]
        coloured = show(standing, Console(colours=True))
        assert not [line for line in coloured if "\x1b" in line.replace("\x1b[1;31m", "").replace("\x1b[0m", "")]
    assert lines[1].startswith("########"), "FAIL stands where it stood"


def face(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mpagent", "--root", str(root), *words]


def test_face_on_a_pipe_shows_one_picture_and_ends(tmp_path: Path) -> None:
    StandingFile(tmp_path / "run/mpagent").write(PASS._replace(boot=read_boot()))
    (tmp_path / "sys/devices/soc0").mkdir(parents=True)
    (tmp_path / "sys/devices/soc0/serial_number").write_text(SERIAL + "\n")
    done = subprocess.run(face(tmp_path, "face"), capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii").splitlines() == show(PASS, PIPE)


class Terminal:
    """A terminal of some size; what a program draws on it."""

    def __init__(self, command: list[str], utf8: bool, size: tuple[int, int]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[0] = attributes[0] | 0x4000 if utf8 else attributes[0] & ~0x4000  # IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def read_until(self, mark: str) -> str:
        """What was drawn, to this mark at least."""
        drawn, limit = b"", time.monotonic() + 20
        while mark.encode() not in drawn:
            assert time.monotonic() < limit, drawn
            if select.select([self._master], [], [], 0.2)[0]:
                drawn += os.read(self._master, 1 << 16)
        return drawn.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        os.close(self._master)


@pytest.mark.parametrize(
    ("device", "flags", "blocks"),
    [
        ((4, 1), 0x4000, True),
        ((4, 1), 0, False),
        ((136, 3), 0x4500, True),
        ((143, 3), 0x500, False),
        ((4, 64), 0x4000, False),
        ((204, 64), 0x4000, False),
        ((207, 16), 0x4000, False),
        ((5, 1), 0x4000, False),
    ],
    ids=["tty1", "tty1-latin", "pts", "pts-latin", "ttyS0", "ttyAMA0", "ttymxc0", "console"],
)
def test_serial_line_gets_plain_ascii_whatever_systemd_set_on_it(
    device: tuple[int, int], flags: int, blocks: bool
) -> None:
    assert has_blocks(os.makedev(*device), flags) is blocks


@pytest.mark.parametrize(("word", "blocks"), [("--ascii", False), ("--blocks", True)])
def test_who_knows_the_console_better_says_so(tmp_path: Path, word: str, blocks: bool) -> None:
    StandingFile(tmp_path / "run/mpagent").write(FAIL._replace(boot=read_boot()))
    terminal = Terminal(face(tmp_path, "face", word), not blocks, (24, 80))
    try:
        assert ("█" in terminal.read_until("stage proven")) is blocks
    finally:
        terminal.close()


@pytest.mark.parametrize("utf8", [True, False])
def test_screen_is_drawn_anew_for_each_change(tmp_path: Path, utf8: bool) -> None:
    file = StandingFile(tmp_path / "run/mpagent")
    terminal = Terminal(face(tmp_path, "face"), utf8, (0, 0))  # a serial line knows no size
    try:
        first = terminal.read_until("stage -")
        assert first.startswith("\x1b[?25l\x1b[H\x1b[2J") and "mpagent has not run since" in first
        file.write(FAIL._replace(boot=read_boot()))
        second = terminal.read_until("stage proven")
        assert second.startswith("\x1b[?25l\x1b[H\x1b[2J") and "\x1b[1;31m########" in second
        assert second.count("\n") == LINES - 1
        assert ("█" in second) is utf8
    finally:
        terminal.close()


def test_watch_follows_a_run_to_its_end_and_ends_as_it_did(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1", closed=False)
    watch = subprocess.Popen(face(disk, "status", "--watch"), stdout=subprocess.PIPE)
    assert watch.stdout is not None
    assert watch.stdout.readline().startswith(b"stopped\t")
    assert counter.run(disk, "enroll", "--once").returncode == 77
    out, _ = watch.communicate(timeout=20)
    last = out.decode().splitlines()[-1].split("\t")
    assert (last[0], last[1], watch.returncode) == ("fail", "proven", 77)
    assert last[4] == "close the part, reboot it, and enroll again"

    passed = counter.make_board(tmp_path / "b2")
    counter.enroll(passed)
    done = subprocess.run(face(passed, "status", "--watch"), capture_output=True, timeout=20)
    assert (done.returncode, done.stdout.split(b"\t")[:2]) == (0, [b"pass", b"done"])


def test_watch_on_a_terminal_gives_the_cursor_back(tmp_path: Path) -> None:
    StandingFile(tmp_path / "run/mpagent").write(PASS._replace(boot=read_boot()))
    terminal = Terminal(face(tmp_path, "status", "--watch"), True, (24, 80))
    try:
        assert terminal.read_until("\x1b[?25h").count("\x1b[2J") == 1
        assert terminal.process.wait(10) == 0
    finally:
        terminal.close()


def test_closed_output_is_an_exit_code_and_no_trace(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(face(tmp_path, "face", "--once"), stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert (done.returncode, done.stderr.count(b"\n")) == (73, 1)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ("", 78, b"no LED is named; write indicator = "),
        ('indicator = "green"\n', 78, b"indicator must be a list of 1 to 4 values"),
        ('indicator = ["../../etc"]\n', 78, b"indicator must be a list of names of LEDs as in /sys/class/leds"),
        ('indicator = ["green:status"]\n', 74, b"no LED 'green:status' on this board; there are: none. Next: correct"),
    ],
)
def test_wrong_indicator_is_named(tmp_path: Path, settings: str, code: int, words: bytes) -> None:
    (tmp_path / "etc/mpagent").mkdir(parents=True)
    (tmp_path / "etc/mpagent/mpagent.toml").write_text(settings)
    done = subprocess.run(face(tmp_path, "face", "--leds"), capture_output=True, timeout=20)
    assert (done.returncode, words in done.stderr, done.stderr.count(b"\n")) == (code, True, 1), done.stderr


def test_leds_follow_a_run_of_a_real_process(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    led = disk / "sys/class/leds/green:status"
    led.mkdir(parents=True)
    for name, content in (("trigger", ""), ("brightness", ""), ("max_brightness", "1\n")):
        (led / name).write_text(content)
    with open(disk / "etc/mpagent/mpagent.toml", "a") as file:
        file.write('indicator = ["green:status"]\n')
    lamp = subprocess.Popen(face(disk, "face", "--leds"), stderr=subprocess.PIPE)
    try:
        counter.enroll(disk)
        limit = time.monotonic() + 20
        while (led / "brightness").read_text() != "1":
            assert lamp.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        assert (led / "trigger").read_text() == "none"
    finally:
        lamp.terminate()
        lamp.communicate(timeout=10)
