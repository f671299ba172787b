"""One line a test; and at the end of every attack no secret stands in any log."""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mpwire.errors import PeerBroke
from tests.attacks.forge import RogueIssuer, prove
from tests.line import Device, Factory, Oem, refusal_check

Refuses = Callable[[bytes, str], None]
Shrugs = Callable[[Device, bytes, str], None]


@pytest.fixture
def make_oem(tmp_path: Path) -> Iterator[Callable[..., Oem]]:
    """Makes issuers; all are stopped at the end."""
    made: list[Oem] = []

    def make(**how: Any) -> Oem:
        made.append(Oem(tmp_path / f"oem{len(made)}", **how))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def oem(make_oem: Callable[..., Oem]) -> Oem:
    """An issuer with one product and one open job of four boards."""
    return make_oem()


@pytest.fixture
def make_factory(tmp_path: Path, make_oem: Callable[..., Oem]) -> Iterator[Callable[[Oem], Factory]]:
    """Makes factories on a line; at the end, with the issuers still there, their logs are searched for secrets."""
    made: list[Factory] = []
    with ExitStack() as stack:

        def make(oem: Oem) -> Factory:
            folder = tmp_path / f"factory{len(made)}"
            folder.mkdir()
            made.append(Factory(folder, oem, stack))
            return made[-1]

        yield make
    for one in made:
        check_logs(one)


@pytest.fixture
def factory(make_factory: Callable[[Oem], Factory], oem: Oem) -> Factory:
    """Makes boards on that issuer's line."""
    return make_factory(oem)


@pytest.fixture
def rogue(oem: Oem) -> RogueIssuer:
    """Signs with the OEM's own keys, to reach the checks behind a signature."""
    return RogueIssuer(oem)


@pytest.fixture
def device(factory: Factory) -> Device:
    """A board that has made its Proof and waits for its Grant."""
    made = factory.board()
    prove(made)
    return made


@pytest.fixture
def refuses(oem: Oem) -> Refuses:
    """The issuer refuses this message by this check, and its ledger is as it was, alarms apart."""

    def check(raw: bytes, name: str) -> None:
        before, alarms = oem.state("alarms"), oem.alarms()
        assert refusal_check(oem.hear(raw)) == name
        assert oem.state("alarms") == before
        assert name in ("clone", "nonce-used") or oem.alarms() == alarms

    return check


@pytest.fixture
def shrugs() -> Shrugs:
    """The board breaks off over this answer, keeps every byte it had, and finishes once the thief is gone."""

    def check(device: Device, answer: bytes, match: str) -> None:
        before, honest = device.kept(), device.line.thief
        device.line.thief = lambda _asked, _answer: answer
        with pytest.raises(PeerBroke, match=match):
            device.enroll()
        assert device.kept() == before
        device.line.thief = honest

    return check


def check_logs(factory: Factory) -> None:
    """No value that any board was given stands in any log of either side, raw, in hex or in base64."""
    lines = "\n".join([*factory.oem.log, *(line for device in factory.devices for line in device.said)])
    for secret in factory.oem.secrets():
        for text in (secret.hex(), b64encode(secret).decode(), urlsafe_b64encode(secret).decode(), repr(secret)[2:-1]):
            assert text not in lines
