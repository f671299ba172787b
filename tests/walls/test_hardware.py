"""docs/hardware.md says where the constants come from; it and the code name the same ones."""

import re
from collections.abc import Iterator

from mpagent.hal.choose import OFFERED
from mpagent.hal.tpm import endorsement
from mpsim import fuses, silicon
from mpwire import limits, mp
from tests.contract.rigs import RIGS
from tests.walls.rooms import ROOT

UPPER = fuses.LAYOUTS["imx8mp"].uid_upper_offset
TEXT = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
MARKS = ("run", "vector", "source", "unverified", "handled", "computed")
ROW = re.compile(r"^\| (.+) \| ([^|]+) \|$", re.MULTILINE)


def test_every_constant_of_the_code_stands_in_the_document() -> None:
    for constant in (
        mp.MPMR_OPTEE.hex(),
        mp.MPMR_OPTEE_FIXED[-4:].hex(),
        f"1 to {limits.MP_MESSAGE_MAX_BYTES} bytes",
        f"32 bytes at {fuses.SRK_HASH_OFFSET:#x}",
        f"offset 0x{fuses.LOCK_WORD_OFFSET:X}, mask {fuses.CLOSED_BIT:#010x}",
        f"8 bytes at {fuses.LAYOUTS['imx8mm'].uid_offset:#x}",
        f"at {fuses.LAYOUTS['imx8mp'].uid_offset:#x} (8MP; upper half at {UPPER:#x})",
        f"{fuses.LAYOUTS['imx8mq'].size_bytes} bytes, 8MP {fuses.LAYOUTS['imx8mp'].size_bytes}",
        f"a blob of {silicon.BLOB_BYTES} bytes",
        f"NV 0x{endorsement.CERTIFICATE_INDEX:08X}",
    ):
        assert constant in TEXT, constant


def test_every_backend_says_what_it_was_run_against() -> None:
    """Of silicon: nothing, until somebody has a board. An emulation is never called anything else."""
    rows = dict(read_backends())
    assert rows.keys() == {f"{sort} {name}" for sort, offered in OFFERED.items() for name in offered}
    assert {on_silicon for on_silicon, *_ in rows.values()} == {"nothing yet", "nothing to ask", ""}
    for backend, (on_silicon, software, emulation, kinds) in rows.items():
        assert (on_silicon == "") == backend.endswith(" sim"), backend
        assert software or emulation or on_silicon == "nothing to ask", backend
        named = set(kinds.split(", "))
        assert named and named <= RIGS.keys(), backend
        port = {"soc": "soc", "attest": "attester", "class-key": "class_key", "seal": "sealer", "keys": "keyring"}.get(
            backend.split()[0]
        )
        assert port is None or all(port in RIGS[kind].ports for kind in named), backend
    brought = {kind for *_, kinds in rows.values() for kind in kinds.split(", ")}
    assert brought == RIGS.keys()


def read_backends() -> Iterator[tuple[str, list[str]]]:
    table = TEXT.partition("| backend | real silicon |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        backend, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield backend, cells


def test_every_fact_has_a_mark() -> None:
    facts_begin = TEXT.index("Facts below are marked")
    rows = [(fact, mark) for fact, mark in ROW.findall(TEXT[facts_begin:]) if mark not in ("---", "mark", "means")]
    facts = rows[len(MARKS) - 2 :]
    assert len(facts) > 30
    assert [fact for fact, mark in facts if not mark.startswith(MARKS)] == []


def test_the_page_says_that_no_silicon_was_touched() -> None:
    assert "No silicon was touched" in TEXT
