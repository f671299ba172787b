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
        found = _look(board)
    if arguments.json:
        put_json(found)
        return 0
    for name, value in found.items():
        if name != "facts":
            put_line(f"{name:<14} {value}")
    for name, fact in found["facts"].items():
        put_line(f"{name:<14} {fact['value']} (says the {fact['by']})")
    return 0


def _look(board: "Board") -> dict[str, Any]:
    from hashlib import sha256

    from mpagent.proof import name_board
    from mpwire.ueid import TPM_NAME_BYTES

    material, facts = board.attester.describe(), board.soc.read_facts()
    found: dict[str, Any] = {
        "ueid": name_board(board).hex(),
        "attester": material.kind,
        "attester_id": material.attester_id.hex(),
        "profile": material.profile,
        "sealer": board.sealer.name,
        "family": facts.family,
    }
    if material.kind == "tpm":
        found["ek_name_hash"] = sha256(material.attester_id[:TPM_NAME_BYTES]).hexdigest()
        found["ek_certificate"] = material.ek_certificate is not None
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
    return found


def _say_who(provenance: Any) -> str:
    return "unknown" if provenance is None else str(provenance.name).lower().replace("_", " ")
