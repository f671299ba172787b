"""Rules of CONTRIBUTING.md that a reader of source can hold."""

from collections.abc import Callable, Iterator

import pytest

from tests.walls import sources
from tests.walls.rooms import ROOT, modules

Reading = Callable[[str], Iterator[str]]

LONG_BODY = "def f():\n    '''Says\n    much.'''\n" + "    # why\n    x = 1\n" * 46
SHORT_BODY = "def f():\n" + "    '''Says'''\n" + "    # why\n    x = 1\n\n" * 45
PATCHED_NAME = "mocker.patch('mpagent.link.socket.create_connection')"


@pytest.mark.parametrize("reading", [sources.oversize, sources.swallowed])
def test_the_rooms_keep_the_rule(reading: Reading) -> None:
    found = {name: list(reading(source)) for name, source in modules().items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_no_environment_variable_steers_device_or_server() -> None:
    rooms = modules("mpwire", "mpagent", "mpissuer", "mpserver")
    found = {name: list(sources.environment_read(source)) for name, source in rooms.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("reading", [sources.avoided, sources.patched])
def test_the_tests_keep_the_rule(reading: Reading) -> None:
    found = {path: list(reading(path.read_text(encoding="utf-8"))) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("reading", "source"),
    [
        (sources.oversize, LONG_BODY),
        (sources.oversize, "x = 1\n" * 501),
        (sources.swallowed, "try:\n    f()\nexcept Exception:\n    pass"),
        (sources.swallowed, "try:\n    f()\nexcept:\n    pass"),
        (sources.environment_read, "import os\nos.environ['MPAGENT_INSECURE']"),
        (sources.environment_read, "import os\nos.getenv('HOME')"),
        (sources.environment_read, "from os import environ\nenviron.get('X')"),
        (sources.environment_read, "import os\nfor k in os.environ: pass"),
        (sources.avoided, "import pytest\n@pytest.mark.skip\ndef test(): ..."),
        (sources.avoided, "import pytest\npytest.importorskip('x')"),
        (sources.avoided, "from pytest import skip"),
        (sources.patched, "mocker.patch('os.rename')"),
        (sources.patched, PATCHED_NAME),
        (sources.patched, "monkeypatch.setattr(time, 'sleep', print)"),
        (sources.patched, "monkeypatch.setattr(link.subprocess, 'run', print)"),
    ],
)
def test_the_reading_refuses_a_source_that_breaks_the_rule(reading: Reading, source: str) -> None:
    assert list(reading(source))


@pytest.mark.parametrize(
    ("reading", "source"),
    [
        (sources.oversize, SHORT_BODY),
        (sources.swallowed, "try:\n    f()\nexcept FileNotFoundError:\n    pass"),
        (sources.environment_read, "import os\nos.environ['TSS2_LOG'] = 'all+none'\nos.environ.get('NOTIFY_SOCKET')"),
        (sources.avoided, "import pytest\npytest.raises(ValueError)\nitems.skip()"),
        (sources.patched, "mocker.spy(port, 'sign')\nmonkeypatch.setattr(board, 'sealer', None)"),
    ],
)
def test_the_reading_lets_a_rightful_source_through(reading: Reading, source: str) -> None:
    assert list(reading(source)) == []
