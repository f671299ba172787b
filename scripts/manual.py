"""A manual page from a command line's own parser, so that both always say the same: `python manual.py PROGRAM`.

Read by the rules of the Debian packages; the modules of the program must be on the path. The date is that of the
changelog entry (SOURCE_DATE_EPOCH), so the same tree gives the same bytes.
"""

import argparse
import importlib
import inspect
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SECTION: Final = {"mpagent": 1, "mpserver": 8}
CODES: Final = Path(__file__).parent.parent / "docs" / "operate.md"


def write_page(program: str, date: str) -> str:
    """The page, in man(7). `date` is its own, as ISO 8601."""
    parser: argparse.ArgumentParser = importlib.import_module(f"{program}.cli").make_parser()
    lines = [f'.TH {program.upper()} {SECTION[program]} "{date}" "mpagent"', ".SH NAME"]
    about = (parser.description or "").rstrip(".")
    lines += [_plain(f"{program} - {about[0].lower()}{about[1:]}"), ".SH SYNOPSIS", f".B {program}"]
    lines += ["[OPTION]... COMMAND [ARGUMENT]...", ".SH OPTIONS", *_list_arguments(parser), ".SH COMMANDS"]
    lines += _list_commands(parser, program)
    lines += [".SH EXIT STATUS", *_list_exit_codes(CODES.read_text(encoding="utf-8"))]
    folder = "mpagent" if program == "mpagent" else "mpagent-server"
    lines += [".SH SEE ALSO", _plain(f"/usr/share/doc/{folder}/operate.md")]
    return "".join(f"{line}\n" for line in lines)


def _list_commands(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
    """Each command below `path` with what its help says, and the commands below that one."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        about = {one.dest: one.help for one in action._choices_actions}
        for name, one in action.choices.items():
            yield f".SS {_plain(f'{path} {name}')}"
            yield _plain(_sentence(one.description or about.get(name) or "").removeprefix(f"{path} {name}: "))
            yield from _list_arguments(one)
            yield from _list_commands(one, f"{path} {name}")


def _list_arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    shape = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action.choices, dict) or action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        yield ".TP"
        yield f"\\fB{_plain(shape._format_action_invocation(action))}\\fR"
        yield _plain(shape._expand_help(action)) if action.help else "\\&"


def _list_exit_codes(operate: str) -> Iterator[str]:
    """The table under "Exit codes" of docs/operate.md."""
    table = operate.split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdecimal():
            yield from (".TP", f"\\fB{cells[0]}\\fR", _plain(cells[2].replace("`", "")))


def _sentence(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _plain(text: str) -> str:
    """No character of it is roff's own."""
    quoted = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{quoted}" if quoted.startswith((".", "'")) else quoted


if __name__ == "__main__":
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"])))
    sys.stdout.write(write_page(sys.argv[1], day))
