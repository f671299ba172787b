"""Every suite here runs against every kind of board that brings its port (`PORT` in the suite)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mpserver.token.preparation import name_token
from tests.contract.rigs import RIGS, Rig, kinds_of
from tests.mpserver.tokens import Office, TokenOffice


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that takes a rig runs once for each kind of board."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", kinds_of(metafunc.module.PORT))
    if "home" in metafunc.fixturenames:
        own = ("own-token",) if metafunc.config.getoption("--own-token") else ()
        metafunc.parametrize("home", ("file", "token", *own))


@pytest.fixture
def room(home: str, tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Office | None]:
    """An issuer whose keys are in a token, SoftHSM2 or the one that was named; None for one with keys in files."""
    if home == "own-token":
        module, label, pin_file = pytestconfig.getoption("--own-token")
        office = Office(tmp_path / "oem", name_token(Path(module), label, "", str(Path(pin_file).absolute()))).found()
        yield office
        office.forget()
    else:
        yield TokenOffice(tmp_path / "oem").found() if home == "token" else None


@pytest.fixture
def make_board_of(tmp_path: Path) -> Iterator[Callable[[str], Rig]]:
    """Makes boards by kind; all are switched off at the end."""
    with ExitStack() as stack:
        made: list[Rig] = []

        def make(kind: str) -> Rig:
            made.append(stack.enter_context(RIGS[kind].make(tmp_path / f"board{len(made)}")))
            return made[-1]

        yield make


@pytest.fixture
def rig(kind: str, make_board_of: Callable[[str], Rig]) -> Rig:
    """The board under contract."""
    return make_board_of(kind)


@pytest.fixture
def stranger(kind: str, make_board_of: Callable[[str], Rig]) -> Rig:
    """Another board of the same kind."""
    return make_board_of(kind)
