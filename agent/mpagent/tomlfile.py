"""A TOML file read strictly: every complaint names file and line, and the nearest key we know."""

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mpagent.errors import ConfigWrong

FILE_MAX_BYTES: Final = 262_144
"""Two roots, 64 slots and the comments of a careful person, with room."""
Check = Callable[[Any], Any]
"""Takes a value as tomllib gives it, returns ours; raises ValueError saying what it should be."""
_KEY: Final = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*(?:\.[^=]*)?=""")
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\]\s][^\]]*)\]")
"""Each part begins where the one before cannot go on, so that a long line costs no more than its length."""
_MULTILINE: Final = re.compile(r'"""|' + "'''")


class Key(NamedTuple):
    """One key we know."""

    check: Check
    required: bool = False


class Table(NamedTuple):
    """One table of a file. `spot` is its header and, in an array of tables, its place."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[tuple[str, int, str], int]
    spot: tuple[str, int] = ("", 0)

    def read(self, known: Mapping[str, Key]) -> dict[str, Any]:
        """Values of the keys that are there, checked. Raises ConfigWrong for every other key."""
        for name in self.values:
            if name not in known:
                raise self.wrong(name, f"unknown key {name!r}{_suggest(name, known)}")
        for name, key in known.items():
            if key.required and name not in self.values:
                raise self.wrong("", f"key {name!r} is missing")
        return {name: self._check(name, known[name].check) for name in self.values}

    def table(self, name: str) -> "Table":
        """A table below this one; empty when it is not there."""
        found = self.values.get(name, {})
        if not isinstance(found, dict):
            raise self.wrong(name, f"{name!r} is not a table: write [{name}]")
        return Table(self.path, found, self.lines, (name, 0))

    def tables(self, name: str) -> "tuple[Table, ...]":
        """An array of tables below this one."""
        found = self.values.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.wrong(name, f"{name!r} is not an array of tables: write [[{name}]]")
        return tuple(Table(self.path, one, self.lines, (name, place)) for place, one in enumerate(found))

    def wrong(self, name: str, text: str) -> ConfigWrong:
        """The error for one key of this table ("" for the table itself), with its place."""
        line = self.lines.get((*self.spot, name)) or self.lines.get((*self.spot, "")) or 1
        return ConfigWrong(f"{self.path}:{line}: {text}")

    def _check(self, name: str, check: Check) -> Any:
        try:
            return check(self.values[name])
        except ValueError as error:
            raise self.wrong(name, f"{name} must be {error}") from None


def read_file(path: Path) -> Table | None:
    """The whole file as a table; None when it is not there. Raises ConfigWrong."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigWrong(f"{path}: not a regular file")
            raw = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigWrong(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > FILE_MAX_BYTES:
        raise ConfigWrong(f"{path}: longer than {FILE_MAX_BYTES} bytes")
    try:
        text = raw.decode()
        return Table(path, tomllib.loads(text), dict(_find_lines(text)))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigWrong(f"{path}:{line}: not UTF-8") from None
    except (ValueError, RecursionError) as error:  # beside its own error, tomllib lets pass what Python itself refuses
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else raw.count(b"\n") + 1
        raise ConfigWrong(f"{path}:{line}: not TOML: {error}") from None


def _open_at_once(path: str, flags: int) -> int:
    """A named pipe in a file's place would wait for a writer that never comes."""
    return os.open(path, flags | os.O_NONBLOCK)


def _find_lines(text: str) -> Iterator[tuple[tuple[str, int, str], int]]:
    """(header, place in an array of tables, key) and its line, for text that tomllib has accepted."""
    spot, counts, inside = ("", 0), dict[str, int](), ""
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if not inside and key:
            yield (*spot, key[1].strip("\"'")), number
        elif not inside and header:
            name = header[2].rstrip()
            counts[name] = counts.get(name, -1) + 1
            spot = (name, counts[name] if header[1] == "[[" else 0)
            yield (*spot, ""), number
            yield ("", 0, name), number
        for quote in _MULTILINE.findall(line):
            inside = quote if not inside else "" if quote == inside else inside


def _suggest(name: str, known: Mapping[str, Key]) -> str:
    near = _find_near(name, known)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"


def _find_near(name: str, known: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # only a mistake pays for it

    return get_close_matches(name, known, 1)


def text(high: int) -> Check:
    """A printable text of 1 to `high` bytes."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value.encode()) <= high:
            raise ValueError(f"a printable text of 1 to {high} bytes")
        return value

    return check


def whole(low: int, high: int) -> Check:
    """An integer of `low` to `high`."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an integer of {low} to {high}")
        return value

    return check


def one_of(*allowed: str) -> Check:
    """One of a closed list of texts."""

    def check(value: Any) -> str:
        if value not in allowed or not isinstance(value, str):
            near = _find_near(value, allowed) if isinstance(value, str) else []
            raise ValueError(f"one of {', '.join(allowed)}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return value

    return check


def truth(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def octets(low: int, high: int) -> Check:
    """Hexadecimal digits of `low` to `high` bytes."""
    size = f"{low}" if low == high else f"{low} to {high}"

    def check(value: Any) -> bytes:
        if isinstance(value, str) and re.fullmatch(r"(?:[0-9a-fA-F]{2})*", value) and low <= len(value) // 2 <= high:
            return bytes.fromhex(value)
        raise ValueError(f"{size} bytes in hexadecimal digits")

    return check


def list_of(check_one: Check, low: int, high: int) -> Check:
    """A list of `low` to `high` values of one sort; becomes a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise ValueError(f"a list of {low} to {high} values")
        try:
            return tuple(check_one(one) for one in value)
        except ValueError as error:
            raise ValueError(f"a list of {error}") from None

    return check


def one_table(value: Any) -> Any:
    """A table or an array of tables, which its own reader checks."""
    return value
