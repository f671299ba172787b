"""mpagent doctor: one line for each ability, with the cause and the next step."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpagent.checkup import Finding

ABOUT = "say for each ability of this board whether it works, why not, and what to do"
_INDENT = 24


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument(
        "--production",
        action="store_true",
        help="fail too where this image lets somebody read the MP public key or sign with it",
    )


def run(arguments: Namespace) -> int:
    """The exit code of the gravest failure, 0 when there is none."""

    from mpagent.checkup import examine, find_worst
    from mpagent.output import put_json, put_line
    from mpwire.guard import guard

    guarded = guard()
    width = None if arguments.json else _find_width()
    findings: list[Finding] = []
    for one in examine(arguments.root, guarded, production=arguments.production):
        if not arguments.json:
            put_line(_shape(_refer(one, findings), width))
        findings.append(one)
    if arguments.json:
        put_json([one._asdict() for one in findings])
    return find_worst(findings)


def _refer(one: "Finding", told: "list[Finding]") -> "Finding":
    """The same cause is told once: a part that is broken breaks every line that needs it."""
    same = next((other for other in told if one.next and (other.cause, other.next) == (one.cause, one.next)), None)
    return one if same is None else one._replace(cause=f"as {same.ability}", next="")


def _find_width() -> int | None:
    """Columns of the terminal; None for a pipe or a file, where one finding is one line."""
    import os
    import sys

    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns, 2 * _INDENT)
    except (OSError, ValueError, AttributeError):
        return None


def _shape(one: "Finding", width: int | None) -> str:
    state = one.state.value if one.state.value == "note" else one.state.value.upper()
    head = f"{state:<8} {one.ability:<14} "
    following = f"Next: {one.next}" if one.next else ""
    if width is None:
        stop = "" if one.cause.endswith(("?", ".")) or not following else "."
        return f"{head}{one.cause}{stop} {following}".rstrip()
    from textwrap import wrap

    lines = [line for text in (one.cause, following) for line in wrap(text, width - len(head), break_on_hyphens=False)]
    return head + f"\n{' ' * len(head)}".join(lines)
