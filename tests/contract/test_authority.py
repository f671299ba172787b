"""mpissuer.ports.Authority: what every authority promises, over files and over a token."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from mpissuer.errors import NotNow, Refused
from mpserver.authority import FileAuthority, IssuerAuthority, make_keystore
from mpserver.certificates import FOR_EVER, ROLE_LIFE_S
from mpserver.errors import StoreDamaged
from mpserver.keystore import Keystore
from mpsim.clock import SetClock
from mpwire import labels
from mpwire.cose import thumbprint
from mpwire.errors import Unauthentic
from mpwire.messages.issuer import HEAD, Head
from mpwire.p256 import SoftKey, verify
from mpwire.secret import Secret
from mpwire.trust import Trust, read_head, write_signed
from tests.mpserver.tokens import NOW, Office

ROLES = ("grant", "head", "bundle", "trust")
JOB = "lot-1"
VALUE = Secret(b"thirty-two bytes of a value.....")


@dataclass
class Issuer:
    """The authority under contract: opened anew by each process, with the clock that all of them share."""

    open: Callable[[], IssuerAuthority]
    clock: SetClock


@pytest.fixture
def office(room: Office | None, tmp_path: Path) -> Issuer:
    """Keys of a new issuer."""
    if room is not None:
        return Issuer(room.open, room.clock)
    make_keystore(tmp_path / "keys", "lab", (), NOW)
    clock = SetClock(NOW)
    return Issuer(lambda: FileAuthority(Keystore(tmp_path / "keys"), "lab", clock), clock)


@pytest.mark.parametrize("role", ROLES)
def test_signatures_are_raw_es256_of_the_key_that_is_shown(office: Issuer, role: str) -> None:
    authority = office.open()
    for message in (b"", b"message", os.urandom(100_000)):
        signature = authority.sign(role, message)
        assert len(signature) == 64
        verify(authority.public_key(role), message, signature)
        with pytest.raises(Unauthentic):
            verify(authority.public_key(role), message + b"!", signature)
    assert office.open().public_key(role) == authority.public_key(role)


def test_each_role_has_a_key_of_its_own(office: Issuer) -> None:
    authority = office.open()
    assert len({authority.public_key(role) for role in ROLES}) == len(ROLES)


def test_chain_leads_a_device_to_the_root(office: Issuer) -> None:
    authority = office.open()
    trust = Trust("lab", (authority.public_key("trust"),), 0, NOW)
    body = HEAD.encode(Head(1, bytes(32), NOW, "lab"))
    raw = write_signed(
        body, labels.TYP_HEAD, labels.AAD_HEAD, authority.chain("head"), lambda message: authority.sign("head", message)
    )
    assert read_head(raw, trust).size == 1
    assert authority.chain("trust") == ()


def test_a_certificate_that_ended_or_is_not_begun_signs_nothing(office: Issuer) -> None:
    authority = office.open()
    for now in (NOW + ROLE_LIFE_S + 1, NOW - 1):
        office.clock.seconds = now
        with pytest.raises(NotNow, match="issuer-certificate"):
            authority.chain("grant")


def test_certificates_are_renewed_over_the_same_key(office: Issuer) -> None:
    before = office.open()
    office.clock.seconds = NOW + ROLE_LIFE_S - 86_400
    after = office.open()
    assert after.public_key("grant") == before.public_key("grant")
    assert after.chain("grant") != before.chain("grant")
    assert after.lives()["tls"][1] == office.clock.seconds + ROLE_LIFE_S


def test_derived_keys_are_the_same_after_a_restart_and_separated_by_label_and_context(office: Issuer) -> None:
    pairs = [(b"a", b"bc"), (b"ab", b"c"), (b"abc", b""), (b"", b"abc"), (b"", b"")]
    derived = [office.open().derive(*pair) for pair in pairs]
    assert [office.open().derive(*pair) for pair in pairs] == derived
    assert all(len(one) == 32 for one in derived)
    assert len({one.reveal() for one in derived}) == len(pairs)


@pytest.mark.parametrize("size", [0, 1, 32, 32_768])
def test_a_wrapped_value_opens_after_a_restart(office: Issuer, size: int) -> None:
    authority, value = office.open(), Secret(os.urandom(size))
    authority.safe.make_job_key(JOB)
    blob = authority.wrap(JOB, value, b"board A")
    assert office.open().unwrap(JOB, blob, b"board A") == value
    assert size < 32 or value.reveal() not in blob
    assert authority.wrap(JOB, value, b"board A") != blob


def test_a_wrapped_value_is_bound_to_its_job_its_context_and_every_byte(office: Issuer) -> None:
    authority = office.open()
    for job in (JOB, "lot-2"):
        authority.safe.make_job_key(job)
    blob = authority.wrap(JOB, VALUE, b"board A")
    damaged = [blob[:at] + bytes((blob[at] ^ 1,)) + blob[at + 1 :] for at in range(len(blob))]
    for job, wrong, context in [
        ("lot-2", blob, b"board A"),
        (JOB, blob, b"board B"),
        (JOB, blob, b""),
        *((JOB, one, b"board A") for one in damaged),
        *((JOB, blob[:size], b"board A") for size in (0, 11, 12, 27, 28, len(blob) - 1)),
        (JOB, blob + b"\0", b"board A"),
    ]:
        with pytest.raises(StoreDamaged, match=f"value of job {job} does not open"):
            authority.unwrap(job, wrong, context)
    assert authority.unwrap(JOB, blob, b"board A") == VALUE


def test_an_ended_job_is_forgotten_by_whoever_had_opened_it(office: Issuer) -> None:
    opened = office.open()
    opened.safe.make_job_key(JOB)
    blob = opened.wrap(JOB, VALUE, b"board A")
    assert opened.unwrap(JOB, blob, b"board A") == VALUE
    office.open().safe.destroy_job_key(JOB)  # as another process, `mpserver job end`, does
    office.open().safe.destroy_job_key(JOB)  # and again, after a power cut
    for authority in (opened, office.open()):
        assert not authority.safe.has_job_key(JOB)
        with pytest.raises(Refused, match="job-ended"):
            authority.unwrap(JOB, blob, b"board A")
        with pytest.raises(Refused, match="job-ended"):
            authority.wrap(JOB, VALUE, b"board A")
    opened.safe.make_job_key(JOB)
    with pytest.raises(StoreDamaged, match="does not open"):
        opened.unwrap(JOB, blob, b"board A")


def test_a_job_approved_again_keeps_its_key(office: Issuer) -> None:
    authority = office.open()
    authority.safe.make_job_key(JOB)
    blob = authority.wrap(JOB, VALUE, b"board A")
    office.open().safe.make_job_key(JOB)
    assert authority.unwrap(JOB, blob, b"board A") == VALUE
    assert office.open().unwrap(JOB, blob, b"board A") == VALUE


def test_jobs_are_told_apart_by_every_letter_of_their_names(office: Issuer) -> None:
    authority = office.open()
    names = ("a", "A", "a/b", "../a", "ä", "a ", "x" * 64)
    for name in names:
        authority.safe.make_job_key(name)
    blobs = {name: authority.wrap(name, VALUE, b"") for name in names}
    authority.safe.destroy_job_key("a")
    assert [name for name in names if authority.safe.has_job_key(name)] == list(names[1:])
    assert all(authority.unwrap(name, blobs[name], b"") == VALUE for name in names[1:])


def test_device_certificates_lead_to_the_root(office: Issuer) -> None:
    authority, key, ueid = office.open(), SoftKey.generate(), b"\x01" + os.urandom(32)
    for _ in range(2):  # the second is made of the first one's form
        leaf, issuer = map(x509.load_der_x509_certificate, authority.certify(key.public_key(), "disk", ueid, FOR_EVER))
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(authority.root_certificate)
        (serial,) = leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        assert serial.value == ueid[1:].hex()
        assert isinstance(leaf.signature_hash_algorithm, SHA256)
    assert thumbprint(authority.public_key("trust")) == thumbprint(office.open().public_key("trust"))


def test_other_keys_are_made_once(office: Issuer) -> None:
    authority = office.open()
    assert not authority.safe.has_key("pcr-authority")
    made = SoftKey(authority.safe.make_key("pcr-authority"))
    again = SoftKey(office.open().safe.load_key("pcr-authority"))
    assert office.open().safe.has_key("pcr-authority") and again.public_key() == made.public_key()
    verify(made.public_key(), b"pcrs", again.sign(b"pcrs"))
