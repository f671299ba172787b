"""The card of the fixed world: its certificate, the authority between, and the root that the product pins."""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mpwire import optee
from tests.vectors import world
from tests.vectors.rsa import OPTEE

CARD: Final = world.FixedKey("card")
ROOT_KEY: Final = world.FixedKey("card-root")
BETWEEN_KEY: Final = world.FixedKey("card-authority")

ExtensionList = tuple[tuple[x509.ExtensionType, bool], ...]


def usage(*, sign: bool = False, certify: bool = False) -> tuple[x509.ExtensionType, bool]:
    """A critical keyUsage."""
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    more = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=sign, key_cert_sign=certify, **more), True


def authority(path_length: int | None = None) -> ExtensionList:
    """What makes a certificate one of an authority."""
    return ((x509.BasicConstraints(ca=True, path_length=path_length), True), usage(certify=True))


LEAF: Final[ExtensionList] = ((x509.BasicConstraints(ca=False, path_length=None), True), usage(sign=True))


def certify(
    name: str,
    key: world.FixedKey | rsa.RSAPublicKey,
    issuer: str,
    signer: world.FixedKey,
    extensions: ExtensionList = LEAF,
    *,
    begin: int = world.NOW - world.DAY,
    end: int = world.NOW + 365 * world.DAY,
) -> x509.Certificate:
    """Signed by anyone, under any name."""
    public = _load(key) if isinstance(key, world.FixedKey) else key
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (issuer, name)]
    builder = x509.CertificateBuilder(*names, public, 1 + sum(name.encode()))
    builder = builder.not_valid_before(datetime.fromtimestamp(begin, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(end, UTC))
    for one, critical in extensions:
        builder = builder.add_extension(one, critical)
    scalar = int.from_bytes(signer.to_scalar().reveal(), "big")
    return builder.sign(ec.derive_private_key(scalar, ec.SECP256R1()), SHA256(), ecdsa_deterministic=True)


def _load(key: world.FixedKey) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.public_key())


def der(certificate: x509.Certificate) -> bytes:
    """As x5chain carries it."""
    return certificate.public_bytes(Encoding.DER)


ROOT: Final = certify("card root", ROOT_KEY, "card root", ROOT_KEY, authority())
ROOT_PEM: Final = ROOT.public_bytes(Encoding.PEM).decode()
BETWEEN: Final = der(certify("card authority", BETWEEN_KEY, "card root", ROOT_KEY, authority(0)))
CERTIFICATE: Final = der(certify("card 1", CARD, "card authority", BETWEEN_KEY))
CHAIN: Final = (CERTIFICATE, BETWEEN)


def wrong_chains() -> dict[str, tuple[bytes, ...]]:
    """Certificates that a product pinning ROOT must refuse, by what is wrong with them."""
    other = world.OTHER

    def leaf(**changes: object) -> bytes:
        given = {"name": "card 1", "key": CARD, "issuer": "card authority", "signer": BETWEEN_KEY, **changes}
        return der(certify(**given))  # type: ignore[arg-type]  # checked by certify's own callers

    def between(*extensions: tuple[x509.ExtensionType, bool], **changes: object) -> bytes:
        given = {"name": "card authority", "key": BETWEEN_KEY, "issuer": "card root", "signer": ROOT_KEY, **changes}
        return der(certify(**given, extensions=extensions))  # type: ignore[arg-type]  # as above

    self_made = der(certify("card root", other, "card root", other, authority()))
    under = der(certify("card 2", CARD, "card 1", CARD))
    deeper = der(certify("deep authority", other, "card authority", BETWEEN_KEY, authority()))
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    return {
        "without the authority between": (CERTIFICATE,),
        "of another card maker": (leaf(issuer="card root", signer=other), self_made),
        "signed by itself": (leaf(issuer="card 1", signer=CARD),),
        "of the root's name alone": (leaf(issuer="card root", signer=other),),
        "under another card's": (under, *CHAIN),
        "ended": (leaf(end=world.NOW - 1), BETWEEN),
        "not yet begun": (leaf(begin=world.NOW + 1), BETWEEN),
        "under an authority that ended": (CERTIFICATE, between(*authority(0), end=world.NOW - 1)),
        "under one that is no authority": (CERTIFICATE, between(*LEAF)),
        "under one that says nothing of authority": (CERTIFICATE, between()),
        "under an authority that may not certify": (CERTIFICATE, between(authority()[0], usage(sign=True))),
        "below an authority's path length": (leaf(issuer="deep authority", signer=other), deeper, BETWEEN),
        "under a constraint nobody reads": (CERTIFICATE, between(*authority(0), (constraints, True))),
        "of an authority itself": (leaf(extensions=authority()), BETWEEN),
        "for a key that may not sign": (leaf(extensions=(LEAF[0], usage(certify=False))), BETWEEN),
        "for an RSA key": (leaf(key=optee.read_public(OPTEE.public)), BETWEEN),
        "that is no certificate": (b"\x30\x03\x02\x01\x01", BETWEEN),
        "beside one that is no certificate": (CERTIFICATE, b"\x30\x03\x02\x01\x01"),
    }
