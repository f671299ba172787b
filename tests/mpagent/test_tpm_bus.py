"""What somebody hears who soldered a probe to the bus between the SoC and its TPM, while a whole agent runs."""

import struct
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import pytest

from mpagent.hal.software import SealedKeyring
from mpagent.hal.tpm import TpmParts, blobs, open_tpm
from mpagent.hal.tpm.endorsement import CERTIFICATE_INDEX
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import p256
from mpwire.secret import Secret
from tests.mpagent.bus import Probe, listen_to
from tests.mpagent.measured import MeasuredBoard

DEK = Secret(sha256(b"a key that a probe must not hear").digest())
START_AUTH_SESSION, SHUTDOWN = 0x176, 0x145
HMAC_SESSION, POLICY_SESSION = 0, 1
NO_KEY = 0x40000007
"""TPM_RH_NULL: a session that is salted to no key."""
AES = 0x0006


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


@pytest.fixture
def probe(tpm: SoftTpm) -> Iterator[Probe]:
    with listen_to(tpm) as listening:
        yield listening


@pytest.fixture
def parts(probe: Probe) -> Iterator[TpmParts]:
    with open_tpm(probe.tcti, MemoryShelf()) as opened:
        yield opened


def test_the_probe_hears_a_key_that_is_not_kept_from_it(probe: Probe, parts: TpmParts) -> None:
    """Without this the tests below could pass with a deaf probe: the same key, unsealed without our session."""
    wrapped = blobs.read(parts.sealer.seal(DEK))
    assert wrapped is not None and not probe.heard(DEK.reveal())
    with parts.chip.loaded(wrapped, "loading") as item:
        parts.chip.run("unsealing", lambda esapi: esapi.unseal(item))
    assert probe.heard(DEK.reveal())


def test_sealed_key_is_not_heard_going_in_or_coming_out(probe: Probe, parts: TpmParts) -> None:
    """T-104 Probe on the bus: the key that opens the vault."""
    assert parts.sealer.unseal(parts.sealer.seal(DEK)) == DEK
    assert len(probe.asked) > 500 and not probe.heard(DEK.reveal())


def test_key_sealed_for_approved_software_is_not_heard(tpm: SoftTpm, tmp_path: Path) -> None:
    """T-104 Probe on the bus: a policy session authorises and hides nothing; another one does."""
    board = MeasuredBoard(tpm, tmp_path / "pcrs")
    board.boot("loader")
    board.approve("loader")
    with listen_to(tpm) as probe, open_tpm(probe.tcti, MemoryShelf(), board.binding()) as parts:
        assert parts.sealer.unseal(parts.sealer.seal(DEK)) == DEK
    assert not probe.heard(DEK.reveal())


def test_shared_and_activated_secrets_are_not_heard(probe: Probe, parts: TpmParts) -> None:
    """T-104 Probe on the bus: with the shared secret it would open the Grant, with the other it would be this TPM."""
    peer = p256.SoftKey.generate()
    shared = parts.keyring.find_or_make("kem").ecdh(peer.public_key())
    material = parts.attester.describe()
    public, _ = parts.chip.tss.TPMT_PUBLIC.unmarshal(material.ek_public)
    make = import_module("tpm2_pytss.utils").make_credential
    blob, encrypted = make(public, DEK.reveal(), material.attester_id[34:])
    assert parts.activator.activate(bytes(blob), bytes(encrypted)) == DEK
    assert probe.heard(peer.public_key()[1:33])
    assert not probe.heard(shared.reveal()) and not probe.heard(DEK.reveal())


def test_software_key_under_the_sealer_is_not_heard(probe: Probe, parts: TpmParts) -> None:
    """T-104 Probe on the bus: the key under which software keys lie on disk."""
    shelf = MemoryShelf()
    key = SealedKeyring(parts.sealer, shelf).find_or_make("sign")
    p256.verify(key.public_key(), b"message", key.sign(b"message"))
    (wrapping,) = (parts.sealer.unseal(blob) for blob in shelf.blobs.values() if blobs.read(blob) is not None)
    assert not probe.heard(wrapping.reveal())


def test_every_session_that_hides_something_is_salted(tpm: SoftTpm, tmp_path: Path) -> None:
    """An unsalted session of an object without a password derives its key from what went over the bus."""
    board = MeasuredBoard(tpm, tmp_path / "pcrs")
    board.boot("loader")
    board.approve("loader")
    with listen_to(tpm) as probe, open_tpm(probe.tcti, MemoryShelf(), board.binding()) as parts:
        parts.sealer.unseal(parts.sealer.seal(DEK))
        parts.counter.read()
        parts.keyring.find_or_make("kem").ecdh(p256.SoftKey.generate().public_key())
    started = [read_session(body) for code, body in probe.commands() if code == START_AUTH_SESSION]
    kinds = [kind for kind, _, _, _ in started]
    assert HMAC_SESSION in kinds and POLICY_SESSION in kinds
    for kind, key, salt, symmetric in started:
        if kind == HMAC_SESSION:
            assert key != NO_KEY and salt > 32 and symmetric == AES


def read_session(body: bytes) -> tuple[int, int, int, int]:
    """(kind, salting key, bytes of salt, cipher) of a TPM2_StartAuthSession."""
    key, _, nonce = struct.unpack_from(">IIH", body)
    (salt,) = struct.unpack_from(">H", body, 10 + nonce)
    kind, symmetric = struct.unpack_from(">BH", body, 12 + nonce + salt)
    return kind, key, salt, symmetric


def test_last_word_is_a_shutdown(tpm: SoftTpm) -> None:
    """So that pulling the plug afterwards is no cut, for us and for whoever else has objects in this TPM."""
    with listen_to(tpm) as probe:
        with open_tpm(probe.tcti, MemoryShelf()) as parts:
            parts.sealer.seal(DEK)
        codes = [code for code, _ in probe.commands()]
    assert codes[-1] == SHUTDOWN and codes.count(SHUTDOWN) == 1


def test_certificate_is_read_once_and_a_finished_board_asks_for_none(tpm: SoftTpm) -> None:
    """Each command costs up to a second on a real TPM."""
    shelf = MemoryShelf()
    with open_tpm(tpm.tcti, shelf) as parts:
        blob = parts.sealer.seal(DEK)
    with listen_to(tpm) as probe, open_tpm(probe.tcti, shelf) as parts:
        parts.sealer.unseal(blob)
    index = struct.pack(">I", CERTIFICATE_INDEX)
    assert [code for code, body in probe.commands() if body.startswith(index)] == []
    with listen_to(tpm) as probe, open_tpm(probe.tcti, shelf) as parts:
        parts.attester.describe()
        parts.attester.describe()
    assert len([code for code, body in probe.commands() if body.startswith(index)]) == 1
