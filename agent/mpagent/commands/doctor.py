"""mpagent doctor: one line for each ability, with the cause and the next step."""

from argparse import ArgumentParser, Namespace

ABOUT = "say for each ability of this board whether it works, why not, and what to do"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(arguments: Namespace) -> int:
    """The exit code of the first failure, 0 when there is none."""

    from mpagent.checkup import examine
    from mpagent.compose import read_device
    from mpagent.output import put_json, put_line
    from mpwire.guard import guard

    guarded = guard()
    findings = []
    for one in examine(read_device(arguments.root), guarded):
        findings.append(one)
        if not arguments.json:
            put_line(f"{one.state:<5} {one.ability:<14} {one.text}")
    if arguments.json:
        put_json([one._asdict() for one in findings])
    return next((one.exit_code for one in findings if one.exit_code), 0)
