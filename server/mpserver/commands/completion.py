"""mpserver completion: a bash script made from the parser, so that both always say the same."""

import argparse
from collections.abc import Iterator

from mpserver.output import Shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("shell", choices=("bash",))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Shown:
    """To be sourced, or put into /etc/bash_completion.d."""
    table = "\n".join(f'    "{path}") words="{" ".join(words)}" ;;' for path, words in _walk(options.parser, ""))
    script = f"""_mpserver() {{
  local path="" word words=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in -*) ;; *) [ "${{path#* }}" = "$path" ] && path="${{path:+$path }}$word" ;; esac
  done
  case "$path" in
{table}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _mpserver mpserver"""
    return Shown({"shell": options.shell, "script": script}, script)


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    """Each command's path with the options and commands that may follow it."""
    options = [one for action in parser._actions for one in action.option_strings if one.startswith("--")]
    verbs = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    below = verbs[0] if verbs else {}
    yield path, options + list(below)
    for name, one in below.items():
        yield from _walk(one, f"{path} {name}".strip())
