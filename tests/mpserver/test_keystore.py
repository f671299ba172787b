"""Keys in files: closed to others, renewed in time, destroyed when a job ends, and each good for one thing only."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpissuer.errors import NotNow, Refused
from mpserver.authority import FileAuthority, read_role_certificate
from mpserver.certificates import FOR_EVER, RENEW_BELOW_S, ROLE_LIFE_S
from mpserver.errors import SetUp, StoreDamaged
from mpserver.keystore import Keystore
from mpsim.clock import SetClock
from mpwire import labels
from mpwire.cose import sig_structure
from mpwire.errors import Unauthentic
from mpwire.messages.issuer import HEAD, Head
from mpwire.p256 import load_point, verify
from mpwire.secret import Secret
from mpwire.trust import Trust, read_head, write_signed
from tests.mpserver.shop import JOB, NOW, Shop


def _open(shop: Shop, now: int = NOW) -> FileAuthority:
    return FileAuthority(Keystore(shop.folder / "keys"), "lab", SetClock(now))


def test_every_file_is_closed_to_others(shop: Shop) -> None:
    places = [shop.folder / "keys", shop.folder / "take-offline", *(shop.folder / "keys").rglob("*")]
    assert len(places) > 15
    for path in (*places, *(shop.folder / "take-offline").iterdir(), shop.folder / "ledger.db"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("name", ["root.pem", "grant.pem", "symmetric.key", "tls.pem", "ca.pem"])
def test_a_key_that_others_could_read_stops_the_server(shop: Shop, name: str) -> None:
    (shop.folder / "keys" / name).chmod(0o640)
    with pytest.raises(StoreDamaged, match="open to others"):
        _open(shop)


@pytest.mark.parametrize("name", [".", "jobs"])
def test_a_keystore_that_others_could_write_into_stops_the_server(shop: Shop, name: str) -> None:
    (shop.folder / "keys" / name).chmod(0o770)
    with pytest.raises(StoreDamaged, match=r"open to others \(mode 770\).* chmod go="):
        _open(shop)


@pytest.mark.parametrize("name", ["root.pem", "head.pem", "head.cose", "ca.crt", "symmetric.key"])
def test_a_broken_key_file_is_named_and_not_replaced(shop: Shop, name: str) -> None:
    path = shop.folder / "keys" / name
    path.write_bytes(b"gone")
    with pytest.raises(StoreDamaged, match=name.replace(".", r"\.")):
        _open(shop)
    assert path.read_bytes() == b"gone"
    path.unlink()
    with pytest.raises(SetUp, match=name.replace(".", r"\.")):
        _open(shop)
    assert not path.exists()


def test_a_certificate_of_another_key_is_refused(shop: Shop) -> None:
    keys = shop.folder / "keys"
    (keys / "grant.cose").write_bytes((keys / "head.cose").read_bytes())
    with pytest.raises(StoreDamaged, match="does not belong"):
        _open(shop)


def test_role_certificates_live_ninety_days_and_are_renewed_with_a_third_left(shop: Shop) -> None:
    assert ROLE_LIFE_S <= 90 * 86_400
    path = shop.folder / "keys" / "grant.cose"
    before = path.read_bytes()
    _open(shop, NOW + ROLE_LIFE_S - RENEW_BELOW_S)
    assert path.read_bytes() == before
    late = NOW + ROLE_LIFE_S - RENEW_BELOW_S + 1
    _open(shop, late)
    assert read_role_certificate(path, path.read_bytes()).not_after == late + ROLE_LIFE_S
    tls = x509.load_pem_x509_certificate((shop.folder / "keys" / "tls.crt").read_bytes())
    assert tls.not_valid_after_utc.timestamp() == late + ROLE_LIFE_S


def test_an_ended_role_certificate_signs_nothing(shop: Shop) -> None:
    shop.authority._clock.seconds = NOW + ROLE_LIFE_S + 1  # type: ignore[attr-defined]  # a SetClock
    (outcome,) = shop.grant(shop.order())
    assert isinstance(outcome, NotNow) and shop.count("units") == 0


def test_a_clock_that_runs_behind_counts_no_board(shop: Shop) -> None:
    """Devices refuse what is signed before its key's life; stored, it would be said to that board again for ever."""
    order = shop.order()
    shop.authority._clock.seconds = NOW - 1  # type: ignore[attr-defined]  # a SetClock
    (outcome,) = shop.grant(order)
    assert isinstance(outcome, NotNow) and "set the clock" in outcome.detail
    assert shop.count("units") == shop.count("grants") == shop.count("entries") == shop.granted() == 0
    shop.authority._clock.seconds = NOW  # type: ignore[attr-defined]
    assert isinstance(shop.grant(order)[0], bytes) and shop.granted() == 1


def test_a_head_signed_by_the_grant_key_is_no_head(shop: Shop) -> None:
    """Roles: a stolen grant key cannot write history."""
    authority, trust = shop.authority, Trust("lab", (shop.authority.public_key("trust"),), 0, NOW)
    body = HEAD.encode(Head(1, bytes(32), NOW, "lab"))
    forged = write_signed(
        body, labels.TYP_HEAD, labels.AAD_HEAD, authority.chain("grant"), lambda raw: authority.sign("grant", raw)
    )
    with pytest.raises(Unauthentic, match="issuer-role"):
        read_head(forged, trust)


def test_the_trust_role_is_the_root_itself(shop: Shop) -> None:
    message = sig_structure(b"", labels.AAD_TRUST_UPDATE, b"update")
    verify(shop.authority.public_key("trust"), message, shop.authority.sign("trust", message))
    assert shop.authority.chain("trust") == ()


def test_an_ended_jobs_values_are_forgotten_in_running_servers_too(shop: Shop) -> None:
    wrapped = shop.authority.wrap(JOB, Secret(b"s" * 32), b"context")
    assert shop.authority.unwrap(JOB, wrapped, b"context") == Secret(b"s" * 32)
    (path,) = (shop.folder / "keys" / "jobs").iterdir()

    Keystore(shop.folder / "keys").destroy_job_key(JOB)  # as another process, `mpserver job end`, does

    assert not path.exists()
    with pytest.raises(Refused, match="job-ended"):
        shop.authority.unwrap(JOB, wrapped, b"context")


def test_a_value_wrapped_for_another_board_does_not_open(shop: Shop) -> None:
    wrapped = shop.authority.wrap(JOB, Secret(b"s" * 32), b"board A")
    for blob, context in ((wrapped, b"board B"), (wrapped[:-1], b"board A"), (b"", b"board A")):
        with pytest.raises(StoreDamaged):
            shop.authority.unwrap(JOB, blob, context)


def test_derived_keys_depend_on_label_and_context_and_not_on_where_they_are_cut(shop: Shop) -> None:
    derive = shop.authority.derive
    assert derive(b"a", b"b") == _open(shop).derive(b"a", b"b")
    assert len({derive(*pair).reveal() for pair in ((b"a", b"b"), (b"ab", b""), (b"", b"ab"), (b"b", b"a"))}) == 4


def test_a_device_certificate_says_who_for_ever_and_for_clients_only(shop: Shop) -> None:
    ueid, key = b"\x01" + bytes(range(32)), ec.generate_private_key(ec.SECP256R1())
    point = shop.order().sign_key
    leaf, issuer = map(x509.load_der_x509_certificate, shop.authority.certify(point, "identity", ueid, FOR_EVER))

    (serial,) = leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert serial.value == ueid[1:].hex() and len(str(serial.value)) <= 64
    assert leaf.not_valid_after_utc.year == 9999
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(shop.authority.root_certificate)
    for one in (leaf, issuer):
        purposes = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert key.public_key() != leaf.public_key()


def test_device_certificates_of_one_second_are_what_the_library_would_write_for_each_board(shop: Shop) -> None:
    """A field of one board left standing in the certificate of another would name the wrong board for ever."""
    serials = set()
    for byte in range(3):
        ueid, point = b"\x01" + bytes([byte]) * 32, shop.order().sign_key
        leaf, issuer = map(x509.load_der_x509_certificate, shop.authority.certify(point, "identity", ueid, FOR_EVER))
        draft = x509.CertificateBuilder(
            leaf.issuer,
            leaf.subject,
            load_point(point),
            leaf.serial_number,
            leaf.not_valid_before_utc.replace(tzinfo=None),
            leaf.not_valid_after_utc.replace(tzinfo=None),
            list(leaf.extensions),
        )
        written = draft.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())

        assert leaf.tbs_certificate_bytes == written.tbs_certificate_bytes
        assert leaf.signature_algorithm_oid == written.signature_algorithm_oid
        assert leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == ueid[1:].hex()
        leaf.verify_directly_issued_by(issuer)
        serials.add(leaf.serial_number)
    assert len(serials) == 3 and all(one.bit_length() == 159 for one in serials)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Both ends in memory; raises ssl.SSLError where one refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(8):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def _context(folder: Path, pem: bytes, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    folder.mkdir()
    (folder / "chain.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return context


def test_no_device_can_stand_for_the_server(shop: Shop, tmp_path: Path) -> None:
    """A board's own certificate is under the same root; TLS must not take it for the server's, even with its name."""
    keys, store = shop.folder / "keys", Keystore(shop.folder / "keys")
    client = ssl.create_default_context(cafile=str(keys / "root.crt"))
    client.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the shop's clock is not the machine's
    _handshake(_context(tmp_path / "own", (keys / "tls.crt").read_bytes(), store.load_key("tls")), client)

    device = ec.generate_private_key(ec.SECP256R1())
    ca = x509.load_pem_x509_certificate((keys / "ca.crt").read_bytes())
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(ca.subject)
        .public_key(device.public_key())
        .serial_number(1)
        .not_valid_before(ca.not_valid_before_utc)
        .not_valid_after(ca.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(store.load_key("ca"), ca.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256, never None here
    )
    chain = forged.public_bytes(Encoding.PEM) + (keys / "ca.crt").read_bytes()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _handshake(_context(tmp_path / "forged", chain, device), client)
