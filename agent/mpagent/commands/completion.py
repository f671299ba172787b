"""mpagent completion: a script for the shell, made from the parser itself."""

from argparse import Action, ArgumentParser, Namespace

ABOUT = "print a completion script for a shell"
SHELLS = ("bash", "zsh", "fish")


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))


def run(arguments: Namespace) -> int:
    """To be sourced, or put where the shell looks for completions."""
    from mpagent.output import put_line

    words = _list_words(arguments.parser)
    put_line({"bash": _write_bash, "zsh": _write_zsh, "fish": _write_fish}[arguments.shell](words))
    return 0


def _list_words(parser: ArgumentParser) -> dict[str, list[str]]:
    """For each command its options and verbs; for "" the commands and global options."""
    words: dict[str, list[str]] = {"": [*_options(parser._actions)]}
    for name, one in _commands(parser).items():
        words[""].append(name)
        inner = _commands(one)
        choices = [word for action in one._actions if action.choices and not inner for word in action.choices]
        words[name] = [*_options(one._actions), *inner, *map(str, choices)]
        for verb in inner.values():
            words[name] += [option for option in _options(verb._actions) if option not in words[name]]
    return words


def _options(actions: list[Action]) -> list[str]:
    return [option for action in actions for option in action.option_strings if option.startswith("--")]


def _commands(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    for action in parser._actions:
        if isinstance(action.choices, dict):
            return action.choices
    return {}


def _write_bash(words: dict[str, list[str]]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(of)}" ;;' for name, of in words.items() if name)
    return f"""_mpagent() {{
  local word command="" words current="${{COMP_WORDS[COMP_CWORD]}}"
  [ "${{COMP_WORDS[COMP_CWORD-1]}}" = --root ] && return
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " {" ".join(name for name in words if name)} " in *" $word "*) command=$word; break ;; esac
  done
  case "$command" in
{cases}
    *) words="{" ".join(words[""])}" ;;
  esac
  case "$command:$current" in *:-*) ;; inspect:*) return ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _mpagent mpagent"""


def _write_zsh(words: dict[str, list[str]]) -> str:
    return "#compdef mpagent\nautoload -U +X bashcompinit && bashcompinit\n" + _write_bash(words)


def _write_fish(words: dict[str, list[str]]) -> str:
    lines = [f"complete -c mpagent -n __fish_use_subcommand -a '{' '.join(words[''])}'"]
    for name, of in words.items():
        if name and of:
            lines.append(f"complete -c mpagent -n '__fish_seen_subcommand_from {name}' -a '{' '.join(of)}'")
    return "\n".join(lines)
