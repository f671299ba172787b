"""mpagent evidence: what this board would say of itself, and who vouches for each line of it."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpagent.hal.ports import Board

ABOUT = "show what this board would say of itself; sends and keeps nothing"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Public ids only: of an MP key its id, never the key, which may be a secret (design section 4)."""
    from mpagent.compose import read_device
    from mpagent.output import put_json, put_line

    device = read_device(arguments.root)
    with device.open_board() as board:
        found = _look(board, device.choice.tpm_tcti)
    if arguments.json:
        put_json(found)
        return 0
    for name, value in found.items():
        if name not in ("facts", "record"):
            put_line(f"{name:<14} {'-' if value is None else value}")
    for name, fact in found["facts"].items():
        put_line(f"{name:<14} {fact['value']} (says the {fact['by']})")
    if "record" in found:
        put_line("record for the OEM's import list (`mpserver key sign-list`):")
        put_json(found["record"])
    return 0


def _look(board: "Board", tpm_tcti: str | None) -> dict[str, Any]:
    from mpagent.proof import name_board
    from mpagent.registration import find_origin, make_record, read_measurement, tell_key

    material, facts = board.attester.describe(), board.soc.read_facts()
    found: dict[str, Any] = {
        "ueid": name_board(board).hex(),
        "attester": material.kind,
        "attester_id": material.attester_id.hex() or None,
        "profile": material.profile,
        "sealer": board.sealer.name,
        "family": facts.family,
    }
    found |= tell_key(material)
    if material.kind == "tpm":
        found["ek_certificate"] = material.ek_certificate is not None
    measurement = read_measurement(board.attester, material)
    if measurement is not None:
        found["measurement"] = measurement
    values = {
        "uid": None if facts.uid is None else facts.uid.hex(),
        "life_cycle": None if facts.life_cycle is None else facts.life_cycle.name.lower(),
        "srk_hash": None if facts.srk_hash is None else facts.srk_hash.hex(),
    }
    found["facts"] = {
        name: {"value": value, "by": _say_who(facts.provenance.get(name))}
        for name, value in values.items()
        if value is not None
    }
    record = make_record(material, find_origin(board.chosen["attest"], tpm_tcti))
    if record is not None:
        found["record"] = record
    return found


def _say_who(provenance: Any) -> str:
    return "unknown" if provenance is None else str(provenance.name).lower().replace("_", " ")
