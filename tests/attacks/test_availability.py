"""A flood of strangers: nothing stored, no scarce operation spent, and the good board gets through."""

import io
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mpagent.record import Stage
from mpissuer.ports import Authority
from mpserver.log import LINES_PER_SECOND, Log
from mpwire import limits
from mpwire.messages.plain import HELLO, PROOF
from mpwire.p256 import SoftKey
from tests.attacks.forge import claiming, hello_of, prove, resign
from tests.line import Factory, Oem, ask_all, refusal_check


class Counting:
    """mpissuer.ports.Authority that counts what it is asked."""

    def __init__(self, real: Authority) -> None:
        self._real = real
        self.realm = real.realm
        self.asked: Counter[str] = Counter()
        self.derived: set[Any] = set()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._real, name)

        def count(*words: Any) -> Any:
            self.asked[name] += 1
            if name == "derive":
                self.derived.add(words)
            return verb(*words)

        return count


@pytest.fixture
def oem(make_oem: Callable[..., Oem]) -> Oem:
    """An issuer whose key operations are counted."""
    return make_oem(watch=Counting)


def spent(oem: Oem) -> Counter[str]:
    """Key operations so far."""
    return Counter(oem.authority.asked)  # type: ignore[attr-defined]


def test_flood_of_hellos_costs_no_row_and_no_signature(factory: Factory, oem: Oem) -> None:
    """T-200 Flood: anybody may ask for challenges; one key a day serves them all, and each is forgotten."""
    raw = ask_all(factory.board(), "greeted").outbox
    assert raw is not None
    hello = HELLO.decode(raw, limits.HELLO_MAX_BYTES)
    oem.hear(raw)
    before, keys, derived = oem.state(), spent(oem), len(oem.authority.derived)  # type: ignore[attr-defined]

    for number in range(200):
        oem.hear(HELLO.encode(hello._replace(run_id=number.to_bytes(8, "big"))))

    assert oem.state() == before
    assert set(spent(oem) - keys) == {"derive"}
    assert len(oem.authority.derived) == derived  # type: ignore[attr-defined]


def test_flood_of_forged_proofs_costs_no_row_and_no_signature(factory: Factory, oem: Oem) -> None:
    """T-201 Flood: proofs by boards that are not ours, over true challenges; nothing is signed, wrapped or stored."""
    device = factory.board()
    proof = prove(device)
    parts = PROOF.decode(proof, limits.PROOF_MAX_BYTES)
    forged = [
        resign(device, proof, sign=SoftKey.generate()),
        resign(device, proof, claiming(life_cycle=1)),
        resign(device, proof, claiming(product="doorbell")),
        PROOF.encode(parts._replace(evidence=parts.evidence[:-1] + bytes([parts.evidence[-1] ^ 1]))),
        PROOF.encode(parts._replace(csrs={})),
    ]
    before, keys = oem.state(), spent(oem)

    for raw in forged * 20:
        assert refusal_check(oem.hear(raw)) not in ("malformed", "challenge")

    assert oem.state() == before
    assert set(spent(oem) - keys) == {"derive"}


def test_flood_of_forged_receipts_and_garbage_costs_nothing(factory: Factory, oem: Oem) -> None:
    """T-202 Flood: receipts under a stranger's signature, and bytes; not even a MAC is derived."""
    device = factory.board()
    receipt = ask_all(device, "kept").outbox
    assert receipt is not None
    before, keys = oem.state(), spent(oem)

    for _ in range(50):
        assert refusal_check(oem.hear(receipt[:-1] + bytes([receipt[-1] ^ 1]))) == "receipt-signature"
        assert refusal_check(oem.hear(b"\xa0")) == "malformed"

    assert oem.state() == before and spent(oem) == keys
    assert device.enroll().stage is Stage.DONE


def test_authenticated_refusals_sign_nothing(factory: Factory, oem: Oem) -> None:
    """T-203 Flood: genuine boards beyond the quota, and clones, cost the issuer no signature and no value."""
    oem.writing.execute("UPDATE jobs SET quota = 1")
    good = factory.board()
    good.enroll()
    proofs = [prove(factory.board()) for _ in range(3)] + [prove(factory.copy_chip(good))]
    keys = spent(oem)

    said = [refusal_check(oem.hear(proof)) for proof in proofs]

    assert said == ["quota"] * 3 + ["clone"]
    assert set(spent(oem) - keys) == {"derive"}
    assert oem.granted() == oem.count("units") == 1


def test_replays_are_answered_from_the_store(factory: Factory, oem: Oem) -> None:
    """T-204 Flood: a recorded Proof said a hundred times is looked up, not verified and not signed anew."""
    device = factory.board()
    proof = prove(device)
    oem.hear(proof)
    before, keys = oem.state(), spent(oem)

    assert {oem.hear(proof) for _ in range(100)} == {oem.hear(proof)}

    assert oem.state() == before and spent(oem) == keys


def test_log_of_a_flood_is_bounded() -> None:
    """T-205 Flood: strangers' garbage cannot fill the disk with log lines; what was dropped is counted."""
    out = io.StringIO()
    log = Log(out)

    for _ in range(10 * LINES_PER_SECOND):
        log.say_bounded("peer-broke", check="malformed")

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert LINES_PER_SECOND <= len(lines) <= 3 * LINES_PER_SECOND


def test_hostile_text_makes_one_log_line(factory: Factory, oem: Oem) -> None:
    """T-206 Log forging: names that a stranger chose stay inside one line of JSON, or are not taken at all."""
    hello = hello_of(prove(factory.board()))
    out = io.StringIO()

    Log(out).say("refused", product='x"}\n{"event": "provisioned"}', detail="\x1b[2J\r\n")
    assert refusal_check(oem.hear(HELLO.encode(hello._replace(product="x\ny")))) == "malformed"

    assert out.getvalue().count("\n") == 1 and "\x1b" not in out.getvalue()
    assert json.loads(out.getvalue())["event"] == "refused"
