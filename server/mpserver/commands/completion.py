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
    walked = list(_walk(options.parser, ""))
    table = "\n".join(f'    "{path}") words="{" ".join(words)}" ;;' for path, words, _ in walked)
    paths = "|".join(path for path, _, _ in walked if path)
    script = f"""_mpserver() {{
  local path="" word words="" before="" current="${{COMP_WORDS[COMP_CWORD]}}"
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$before" in {"|".join(_find_valued(options.parser))}) before=""; continue ;; esac
    before="$word"
    case "|{paths}|" in *"|${{path:+$path }}$word|"*) path="${{path:+$path }}$word" ;; esac
  done
  case "$before" in {"|".join(_find_valued(options.parser))}) return ;; esac
  case "$path:$current" in *:-*) ;; {"|".join(f'"{path}":*' for path, _, takes in walked if takes)}) return ;; esac
  case "$path" in
{table}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _mpserver mpserver"""
    return Shown({"shell": options.shell, "script": script}, script)


def _find_valued(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of every command that takes a value."""
    below = [one for action in parser._actions if isinstance(action.choices, dict) for one in action.choices.values()]
    own = [name for action in parser._actions if action.nargs != 0 for name in action.option_strings]
    return sorted({*own, *(name for one in below for name in _find_valued(one))})


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str], bool]]:
    """Each command's path, the options and commands that may follow it, and whether a name or a file may."""
    options = [one for action in parser._actions for one in action.option_strings if one.startswith("--")]
    verbs = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    below = verbs[0] if verbs else {}
    yield path, options + list(below), any(not one.option_strings and not one.choices for one in parser._actions)
    for name, one in below.items():
        yield from _walk(one, f"{path} {name}".strip())
