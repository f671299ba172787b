"""A board with a PKCS#11 token loses its power at every change of token or shelf, and inside one."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mpagent.hal.pkcs11 import Pkcs11Parts, open_pkcs11
from mpagent.hal.pkcs11.token import Meaning, Token
from mpsim.shelf import MemoryShelf
from mpsim.softhsm import MODULE, SoftHsm
from mpwire.secret import Secret
from tests.contract.rigs import check_signature
from tests.contract.rigs.pkcs11 import WITHOUT_GCM

DEK = Secret(bytes(range(32)))
LABELS = ("sign", "kem")
Answer = TypeVar("Answer")


class Cut(BaseException):
    """The power is gone."""


class Plug:
    """Pulled at touch number `pull_at`, counted from 1; whoever touches afterwards is cut too."""

    def __init__(self, pull_at: int) -> None:
        self._left = pull_at

    def touch(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Cut

    @property
    def was_pulled(self) -> bool:
        return self._left <= 0


class PluggedToken(Token):
    """Cut before the token makes anything, and after it did and nobody heard. Everything else leaves it as it was."""

    plug: Plug

    def run(self, doing: str, verb: Callable[[Any], Answer], *meaning: Meaning) -> Answer:
        if not doing.startswith("making"):
            return super().run(doing, verb, *meaning)
        self.plug.touch()
        answer = super().run(doing, verb, *meaning)
        self.plug.touch()
        return answer


class PluggedShelf(MemoryShelf):
    """Cut before a blob is there, and after it is."""

    def __init__(self, under: MemoryShelf, plug: Plug) -> None:
        super().__init__()
        self.blobs, self._plug = under.blobs, plug

    def put(self, name: str, blob: bytes) -> None:
        self._plug.touch()
        super().put(name, blob)
        self._plug.touch()


@pytest.fixture(params=[None, WITHOUT_GCM], ids=["gcm", "cbc-hmac"])
def make_token(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SoftHsm]:
    """Makes tokens, each in a folder of its own."""
    made: list[SoftHsm] = []

    def make() -> SoftHsm:
        token = SoftHsm(tmp_path / f"token{len(made)}")
        token.offer(request.param)
        token.initialize()
        token.insert()
        made.append(token)
        return token

    return make


def open_on(token: SoftHsm, shelf: MemoryShelf) -> Pkcs11Parts:
    return open_pkcs11(MODULE, token.label, token.pin_file, shelf)


def live(parts: Pkcs11Parts, heard: dict[str, bytes], sealed: list[bytes]) -> None:
    """One run of an agent: whatever it got hold of was said."""
    sealed.append(parts.sealer.seal(DEK))
    assert parts.sealer.unseal(sealed[-1]) == DEK
    for label in LABELS:
        public = parts.keyring.find_or_make(label).public_key()
        assert heard.setdefault(label, public) == public, f"a second {label} key was said"


def test_cut_at_any_change_leaves_one_root_and_one_key_a_label(make_token: Callable[[], SoftHsm]) -> None:
    """T-444 Power cut while keys are made: no second key is ever said, and none is left beside the first."""
    for pull_at in range(1, 100):
        token, shelf, plug = make_token(), MemoryShelf(), Plug(pull_at)
        heard: dict[str, bytes] = {}
        sealed: list[bytes] = []
        with open_on(token, shelf) as whole:
            plugged = PluggedToken(whole.token.p11, whole.token._info, whole.token._session)
            plugged.plug = plug
            with suppress(Cut):
                live(Pkcs11Parts(plugged, PluggedShelf(shelf, plug)), heard, sealed)
        token.insert()
        with open_on(token, shelf) as again:
            live(again, heard, sealed)
            assert [again.sealer.unseal(blob) for blob in sealed] == [DEK] * len(sealed)
            check_left(again.token)
        if not plug.was_pulled:
            assert pull_at > 2 * (1 + 2 * len(LABELS)), "root, and pair and record of each label, have two touches each"
            return
    raise AssertionError("the plug was never reached")


def check_left(token: Token) -> None:
    """One root, one pair a label, and nothing else of ours."""
    p11 = token.p11
    found = {
        kind: sorted(one.label for one in token.find("counting", {p11.Attribute.CLASS: getattr(p11.ObjectClass, kind)}))
        for kind in ("SECRET_KEY", "PRIVATE_KEY", "PUBLIC_KEY")
    }
    assert found.pop("SECRET_KEY") in (["mpagent-root"], ["mpagent-root", "mpagent-root-mac"])
    assert all(names == ["mpagent-key-kem", "mpagent-key-sign"] for names in found.values()), found


@pytest.mark.parametrize("lost", ["PRIVATE_KEY", "PUBLIC_KEY"])
def test_half_a_pair_that_nobody_heard_of_is_passed_over(make_token: Callable[[], SoftHsm], lost: str) -> None:
    """A token that makes its two objects one after the other, and dies between them."""
    token, shelf = make_token(), MemoryShelf()
    with open_on(token, MemoryShelf()) as before:
        unheard = before.keyring.find_or_make("sign").public_key()
        p11 = before.token.p11
        for half in before.token.find("looking", {p11.Attribute.CLASS: getattr(p11.ObjectClass, lost)}):
            before.token.run("losing", lambda _session, half=half: half.destroy())
    publics = set()
    for _ in range(2):
        with open_on(token, shelf) as after:
            key = after.keyring.find_or_make("sign")
            publics.add(key.public_key())
            check_signature(key, b"whole")
    assert len(publics) == 1 and unheard not in publics


VICTIM = """
import sys
from pathlib import Path
from mpagent.durable import Disk
from mpagent.hal.pkcs11 import open_pkcs11
from mpagent.shelf import DiskShelf
from mpsim.softhsm import MODULE
from mpwire.secret import Secret
disk = Disk(Path(sys.argv[2]))
disk.prepare()
with open_pkcs11(MODULE, "mpagent", Path(sys.argv[1]), DiskShelf(disk)) as parts:
    print(parts.sealer.seal(Secret(bytes(range(32)))).hex(), flush=True)
    print(parts.keyring.find_or_make("sign").public_key().hex(), flush=True)
"""


def run_victim(token: SoftHsm, disk: Path, cut: int | None) -> tuple[int, list[bytes]]:
    """A whole process of the agent, killed when SoftHSM2 empties a file for the `cut`-th time; what it said."""
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SOFTHSM2_CONF": str(token.folder / "softhsm2.conf"),
    }
    command = [sys.executable, "-c", VICTIM, str(token.pin_file), str(disk)]
    if cut is not None:
        inject = ["-e", "trace=ftruncate", "-e", f"inject=ftruncate:signal=KILL:when={cut}"]
        command = ["strace", "-f", "-qq", "-o", os.devnull, *inject, *command]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    return done.returncode, [bytes.fromhex(line) for line in done.stdout.split()]


@pytest.mark.parametrize("cut", [3, 20, 37, 60, 81, 95])
def test_token_that_dies_in_the_middle_of_its_own_writing_is_taken_up_again(tmp_path: Path, cut: int) -> None:
    """T-444 SoftHSM2 writes a key attribute by attribute, the whole file each time: about a hundred writes."""
    token = SoftHsm(tmp_path / "token")
    token.initialize()
    died, said = run_victim(token, tmp_path / "disk", cut)
    assert died and len(said) < 2
    for _ in range(2):
        ended, again = run_victim(token, tmp_path / "disk", None)
        assert ended == 0 and len(again) == 2
        said.append(again[1])
    assert len(set(said[-2:])) == 1
