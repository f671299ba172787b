"""Secrets looked for where they must not be: in prints, logs, errors, dumps and files."""

import asyncio
import copy
import io
import json
import logging
import pickle
import traceback
from base64 import b64encode
from collections.abc import Iterable

import pytest

from mpagent.slots import VaultSlot
from mpissuer.enrollment import write_refusal
from mpissuer.policy import read_product
from mpserver.log import Log
from mpserver.service import Service, deliver
from mpserver.store.writer import Writer
from mpwire.errors import MpError
from mpwire.messages.grant import SlotGrant
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from tests.attacks.forge import Exchange, RogueIssuer, claiming, prove, resign
from tests.line import PRODUCT, STATIC_HEX, Factory, Oem, fill_product

VALUE = bytes(range(100, 132))


def spellings(value: bytes) -> list[str]:
    """How a value might show in a text."""
    return [value.hex(), value.hex().upper(), b64encode(value).decode(), repr(value)[2:-1], str(list(value))[1:-1]]


def assert_free(text: str, values: Iterable[bytes]) -> None:
    """No value in the text, in any spelling."""
    for value in values:
        for one in spellings(value):
            assert one not in text


def test_secret_prints_its_length_only() -> None:
    """T-180 Careless print: repr, str, format, f-string, logging, a dataclass around it, pickle, copy, JSON, hash."""
    secret = Secret(VALUE)
    slot = SlotGrant("cloud", "random", "sealed", 1, secret)
    kept = VaultSlot("cloud", "random", "sealed", 1, secret)
    record = logging.LogRecord("x", 1, "x", 1, "%s %r", (secret, secret), None)

    text = f"{secret} {secret!r} {secret:>80} {slot} {kept} {record.getMessage()} {[secret]} {asdict_text(slot)}"

    assert "Secret(32 bytes)" in text
    assert_free(text, [VALUE])
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, hash, json.dumps):
        with pytest.raises(TypeError):
            attempt(secret)
    assert secret == Secret(VALUE) and secret != Secret(bytes(32)) and secret != VALUE
    assert not hasattr(secret, "__dict__")


def asdict_text(slot: SlotGrant) -> str:
    """What a careless log of its fields would say."""
    return str(slot._asdict())


def test_private_key_prints_its_public_half_only() -> None:
    """T-181 Careless print: a software key in a log or an error."""
    key = SoftKey.generate()

    assert_free(f"{key} {key!r} {[key]}", [key.to_scalar().reveal()])


def test_product_prints_no_static_value() -> None:
    """T-182 Careless print: a product with a static value, parsed and logged."""
    product = read_product(fill_product(PRODUCT))

    assert_free(f"{product} {product!r} {product.slots}", [bytes.fromhex(STATIC_HEX)])


def test_errors_of_a_bad_grant_hold_no_secret(factory: Factory, oem: Oem) -> None:
    """T-183 Careless error: values that fail their checks appear in no text, detail or traceback."""
    device = factory.board()
    prove(device)
    exchange, rogue = Exchange.of(device), RogueIssuer(oem)

    def spoil(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
        return [slots[0], slots[1]._replace(value=Secret(VALUE)), *slots[2:]]

    for grant in (rogue.grant(exchange, slots=spoil), rogue.grant(exchange, slots=lambda slots, _: slots[1:])):
        device.line.thief = lambda _asked, _answer, grant=grant: grant  # type: ignore[misc]
        with pytest.raises(MpError) as caught:
            device.enroll()
        told = "".join(traceback.format_exception(caught.value)) + caught.value.detail + "\n".join(device.said)
        assert_free(told, [VALUE, b"rogue" * 4, bytes(range(32)), *oem.secrets()])


def test_server_log_of_an_attack_holds_no_secret_and_no_body(factory: Factory, oem: Oem) -> None:
    """T-184 Careless log: good runs, forgeries and garbage through the service; the log names checks, not contents."""
    out = io.StringIO()
    writer = Writer(oem.sequencer, deliver)
    service = Service(oem.answer, write_refusal, writer, Log(out))
    writer.start()

    def hear(raw: bytes) -> bytes:
        return asyncio.run(service.handle(raw)).body

    device, other = factory.board(), factory.board()
    oem.hear = hear  # type: ignore[method-assign]
    device.enroll()
    proof = prove(other)
    for raw in (resign(other, proof, claiming(life_cycle=1)), b"\x00" * 999, proof[:-1], b"<html>", proof + b"\x00"):
        hear(raw)
    writer.stop()

    text = out.getvalue()
    assert '"check": "life-cycle"' in text and text.count("\n") == 5
    assert_free(text, [*device.secrets().values(), *oem.secrets(), proof[:64]])
    assert all(json.loads(line)["event"] in ("refused", "peer-broke") for line in text.splitlines())


def test_no_secret_crosses_the_line_or_lies_on_a_disk_in_the_clear(factory: Factory, oem: Oem) -> None:
    """T-185 Interception: everything said, the ledger, and the state partition, after an attack and a good run."""
    device = factory.board()
    proof = prove(device)
    oem.hear(resign(device, proof, claiming(life_cycle=1)))
    device.enroll()

    everything = b"".join([*device.line.heard, *device.line.said]) + device.disk_bytes() + oem.dump()

    values = [value for name, value in device.secrets().items() if name in ("disk", "cloud")]
    assert len(values) == 2
    for value in values:
        assert value not in everything and value.hex().encode() not in everything
    assert bytes.fromhex(STATIC_HEX) not in everything and STATIC_HEX.encode() not in everything


def test_peer_hears_the_name_of_a_check_and_nothing_else(factory: Factory, oem: Oem) -> None:
    """T-186 Probing: a refusal gives the check and a class; what the operator reads stays here (promise P11)."""
    device = factory.board(closed=False)
    answer = oem.hear(prove(device))

    assert len(answer) < 32 and b"life-cycle" in answer
    assert "policy wants closed" in oem.log[-1] and b"policy" not in answer
    assert oem.hear(b"\xff") == write_refusal(MpError("x"))
