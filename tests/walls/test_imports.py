"""The rooms stay apart; each wall is shown able to fail by a source that runs into it."""

import pytest

from tests.walls import rooms

DEPENDENCIES = {
    room: rooms.declared(room, (rooms.ROOT / {"agent": "."}.get(folder, folder) / "pyproject.toml").read_text())
    for room, folder in rooms.HOME.items()
}


@pytest.mark.parametrize("room", rooms.HOME)
def test_no_room_imports_what_its_table_row_leaves_out(room: str) -> None:
    sources = rooms.modules(room)
    assert sources
    found = {name: rooms.violations(name, source, DEPENDENCIES[room]) for name, source in sources.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mpwire.codec", "import mpagent"),
        ("mpwire.codec", "from mpissuer.ports import Ledger"),
        ("mpwire.codec", "def read():\n    import requests"),
        ("mpagent.vault", "from mpissuer import grant"),
        ("mpagent.vault", "import mpsim.board"),
        ("mpagent.vault", "from importlib import import_module\nimport_module('mpsim.backend')"),
        ("mpagent.vault", "__import__('mpsim')"),
        ("mpagent.vault", "import importlib\nimportlib.import_module('mpsim')"),
        ("mpagent.vault", "exec(text)"),
        ("mpagent.vault", "import tpm2_pytss"),
        ("mpagent.hal.tpm.chip", "from smartcard import scard"),
        ("mpagent.vault", "import cbor2"),
        ("mpagent.hal.choose", "import importlib\nimportlib.import_module('mpserver.cli')"),
        ("mpissuer.grant", "from mpagent.record import Record"),
        ("mpissuer.grant", "import sqlite3"),
        ("mpissuer.grant", "from http import HTTPStatus"),
        ("mpissuer.grant", "import socket"),
        ("mpissuer.grant", "from granian import Granian"),
        ("mpserver.http", "from mpagent.link import Link"),
        ("mpserver.http", "import mpsim"),
        ("mpsim.board", "from mpagent import vault"),
        ("mpsim.board", "from mpagent.hal import choose"),
        ("mpsim.board", "import mpserver.cli"),
        ("mpsim.board", "from . import fuses"),
    ],
)
def test_the_wall_refuses_a_module_that_runs_into_it(name: str, source: str) -> None:
    assert rooms.violations(name, source, DEPENDENCIES[name.split(".")[0]])


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mpagent.hal.choose", "import importlib\nimportlib.import_module('mpsim.backend')"),
        ("mpsim.board", "from mpagent.hal import ports\nfrom mpagent.errors import NotMine"),
        (
            "mpsim.board",
            "from importlib import resources, metadata",
        ),
        ("mpserver.http", "from mpissuer.ports import Ledger\nimport sqlite3, granian"),
    ],
)
def test_the_wall_lets_through_what_the_table_allows(name: str, source: str) -> None:
    assert rooms.violations(name, source, DEPENDENCIES[name.split(".")[0]]) == []


@pytest.mark.parametrize("name", ["mpagent.enrollment", "mpagent.runner"])
def test_the_story_and_its_runner_reach_disk_line_and_chip_through_ports_alone(name: str) -> None:
    sources = rooms.modules("mpagent")
    assert name in sources
    assert rooms.touching(name, sources) == []


@pytest.mark.parametrize(
    "sibling",
    ["import os", "import requests", "from mpagent.hal.tpm import open_board", "from mpagent.hal import choose"],
)
def test_the_story_is_refused_a_sibling_that_touches(sibling: str) -> None:
    sources = {
        "mpagent.enrollment": "from mpagent.record import Record\nfrom mpagent.hal.ports import Board",
        "mpagent.record": sibling,
        "mpagent.hal.choose": "",
        "mpagent.hal.tpm": "",
        "mpagent.hal.ports": "",
    }
    assert rooms.touching("mpagent.enrollment", sources)
    assert rooms.touching("mpagent.enrollment", {**sources, "mpagent.record": "import hashlib"}) == []


def backend_violations(sources: dict[str, str]) -> list[str]:
    """Backends know ports, errors and each other; the story, its runner and what composes them are above.

    `closed` decides over the port of an attester, for the story and for a witness alike.
    """
    allowed = ("mpagent.hal", "mpagent.errors", "mpagent.closed")
    return [
        f"{name} -> {module}"
        for name, source in sources.items()
        if name.startswith("mpagent.hal")
        for module in rooms.names_imported(source)
        if module.startswith("mpagent.") and not rooms.within(module, allowed)
    ]


def test_backends_do_not_see_the_enrollment() -> None:
    assert backend_violations(rooms.modules("mpagent")) == []
    assert backend_violations({"mpagent.hal.caam": "from mpagent.enrollment import STORY"})
    assert backend_violations({"mpagent.hal.caam": "def open():\n    from mpagent import compose"})
