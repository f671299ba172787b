"""MakeCredential and our reading of evidence against a real TPM 2.0 (swtpm, driven by tpm2-tools)."""

import hmac
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mpissuer.credential import SECRET_MAX_BYTES, make_credential
from mpsim.swtpm import SoftTpm, SoftTpmBroke
from mpwire import p256, tpm2
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret
from mpwire.tpm2 import Attributes

SECRET = bytes(range(SECRET_MAX_BYTES))
EK = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x41"))
EK_PUBLIC = tpm2.Public(
    tpm2.BORN_HERE | Attributes.RESTRICTED | Attributes.DECRYPT, EK.public_key(), bytes(32), symmetric_bits=128
)
AK_NAME = b"\x00\x0b" + bytes(32)


class Bench:
    """A TPM with an EK of one kind and an AK beside it, as tpm2-tools make them; files in one directory."""

    def __init__(self, tpm: SoftTpm, folder: Path) -> None:
        self.tpm, self.folder = tpm, folder

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def use(self, tool: str, *arguments: str) -> None:
        self.tpm.use_tool(tool, *arguments)
        self.tpm.use_tool("tpm2_flushcontext", "-t")

    def make_keys(self, kind: str) -> None:
        self.use("tpm2_createek", "-G", kind, "-c", self.path("ek"), "-u", self.path("ek.pub"))
        names = ["-u", self.path("ak.pub"), "-n", self.path("ak.name")]
        self.use("tpm2_createak", "-C", self.path("ek"), "-c", self.path("ak"), "-G", "ecc", "-s", "ecdsa", *names)

    def public(self, name: str) -> bytes:
        """TPMT_PUBLIC out of the TPM2B_PUBLIC that the tools write."""
        return (self.folder / f"{name}.pub").read_bytes()[2:]

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential. The two heads are tpm2-tools' file format (lib/files.c)."""
        blob = struct.pack(">IIH", 0xBADCC0DE, 1, len(id_object)) + id_object
        (self.folder / "blob").write_bytes(blob + struct.pack(">H", len(encrypted_secret)) + encrypted_secret)
        session = self.path("session")
        self.tpm.use_tool("tpm2_startauthsession", "--policy-session", "-S", session)
        try:
            self.tpm.use_tool("tpm2_policysecret", "-S", session, "-c", "e")
            keys = ["-c", self.path("ak"), "-C", self.path("ek"), "-P", f"session:{session}"]
            self.tpm.use_tool("tpm2_activatecredential", *keys, "-i", self.path("blob"), "-o", self.path("out"))
        finally:
            self.tpm.use_tool("tpm2_flushcontext", session)
            self.tpm.use_tool("tpm2_flushcontext", "-t")
        return (self.folder / "out").read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    tpm = SoftTpm(tmp_path / "tpm")
    tpm.start()
    try:
        yield Bench(tpm, tmp_path)
    finally:
        tpm.stop()


def read_der(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_real_tpm_activates_our_credential_and_no_altered_one(bench: Bench, kind: str) -> None:
    """T Borrowed EK: only the TPM that holds both this EK and this AK gets the secret."""
    bench.make_keys(kind)
    ek, name = bench.public("ek"), tpm2.make_name(bench.public("ak"))
    assert (bench.folder / "ak.name").read_bytes() == name
    assert tpm2.write_public(tpm2.read_public(ek)) == ek
    tpm2.check_ek(tpm2.read_public(ek))
    assert bench.activate(*make_credential(ek, name, SECRET)) == SECRET

    (bench.folder / "out").unlink()
    another = tpm2.make_name(tpm2.write_public(EK_PUBLIC))
    id_object, encrypted_secret = make_credential(ek, name, SECRET)
    altered = id_object[:-1] + bytes([id_object[-1] ^ 1])
    for attempt in (make_credential(ek, another, SECRET), (altered, encrypted_secret)):
        with pytest.raises(SoftTpmBroke):
            bench.activate(*attempt)
        assert not (bench.folder / "out").exists()


def test_real_quote_verifies(bench: Bench) -> None:
    """What a TPM writes is what we read: nothing in these bytes is ours."""
    bench.make_keys("ecc")
    ak = tpm2.read_public(bench.public("ak"))
    tpm2.check_ak(ak)
    question = sha256(b"question").digest()
    out = ["-m", bench.path("q.attest"), "-s", bench.path("q.sig"), "-f", "plain"]
    bench.use("tpm2_quote", "-c", bench.path("ak"), "-l", "sha256:0,7,23", "-q", question.hex(), *out)
    bench.use("tpm2_pcrread", "sha256:0,7,23", "-o", bench.path("pcrs"))
    values = (bench.folder / "pcrs").read_bytes()
    pcrs = [(index, values[32 * at : 32 * at + 32]) for at, index in enumerate((0, 7, 23))]
    attest, signature = (bench.folder / "q.attest").read_bytes(), read_der((bench.folder / "q.sig").read_bytes())
    read = tpm2.verify_quote(attest, signature, ak.unique, question, pcrs)
    assert tpm2.write_attest(read) == attest
    with pytest.raises(Unauthentic, match="tpm-pcr-digest"):
        tpm2.verify_quote(attest, signature, ak.unique, question, [*pcrs[:2], (23, b"\x01" * 32)])


def test_real_certification_verifies(bench: Bench) -> None:
    """tpm2_certify puts its own words into extraData, so they are taken from there."""
    bench.make_keys("ecc")
    flags = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"
    key = ["-C", "o", "-G", "ecc256:null:null", "-a", flags, "-c", bench.path("key"), "-o", bench.path("key.pub")]
    bench.use("tpm2_createprimary", *key, "-f", "tss")
    out = ["-o", bench.path("c.attest"), "-s", bench.path("c.sig"), "-f", "plain"]
    bench.use("tpm2_certify", "-c", bench.path("key"), "-C", bench.path("ak"), "-g", "sha256", *out)
    attest, signature = (bench.folder / "c.attest").read_bytes(), read_der((bench.folder / "c.sig").read_bytes())
    ak = tpm2.read_public(bench.public("ak")).unique
    read = tpm2.verify_certify(attest, signature, ak, tpm2.read_attest(attest).extra_data, bench.public("key"))
    assert read == tpm2.read_public(bench.public("key"))
    with pytest.raises(Unauthentic, match="tpm-name"):
        tpm2.verify_certify(attest, signature, ak, tpm2.read_attest(attest).extra_data, bench.public("ak"))


class SoftActivator:
    """The TPM's half of Part 1 section 24 over a private key in memory, written from the text a second time."""

    def __init__(self, key: p256.SoftKey, name: bytes) -> None:
        self._key, self._name = key, name

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> bool:
        """Whether the integrity HMAC holds."""
        point = b"\x04" + encrypted_secret[2:34] + encrypted_secret[36:]
        parties = point[1:33] + self._key.public_key()[1:33]
        seed = sha256(struct.pack(">I", 1) + self._key.ecdh(point).reveal() + b"IDENTITY\0" + parties).digest()
        mac_key = hmac.digest(seed, struct.pack(">I", 1) + b"INTEGRITY\0" + struct.pack(">I", 256), "sha256")
        return hmac.digest(mac_key, id_object[34:] + self._name, "sha256") == id_object[2:34]


def test_credential_is_fresh_and_bound_to_one_name() -> None:
    made = [make_credential(tpm2.write_public(EK_PUBLIC), AK_NAME, SECRET) for _ in range(2)]
    assert made[0][0] != made[1][0] and made[0][1] != made[1][1]
    assert all(SECRET not in part for pair in made for part in pair)
    assert SoftActivator(EK, AK_NAME).activate(*made[0])
    assert not SoftActivator(EK, AK_NAME[:-1] + b"\x01").activate(*made[0])
    assert [len(part) for part in made[0]] == [68, 68]


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": EK_PUBLIC.attributes & ~Attributes.RESTRICTED},
        {"attributes": EK_PUBLIC.attributes & ~Attributes.FIXED_TPM},
        {"attributes": EK_PUBLIC.attributes | Attributes.SIGN},
        {"symmetric_bits": None},
        {"symmetric_bits": 256},
    ],
)
def test_key_that_is_no_ek_gets_no_credential(change: dict[str, int]) -> None:
    """T Software EK: an unrestricted decryption key would decrypt the credential for anybody."""
    with pytest.raises(Unauthentic, match="tpm-ek-attributes"):
        make_credential(tpm2.write_public(EK_PUBLIC._replace(**change)), AK_NAME, SECRET)  # type: ignore[arg-type]


def test_malformed_parts_get_no_credential() -> None:
    ek = tpm2.write_public(EK_PUBLIC)
    for wrong in (ek[:-1], ek + b"\x00", b""):
        with pytest.raises(Malformed, match="tpm-public"):
            make_credential(wrong, AK_NAME, SECRET)
    for name in (b"", AK_NAME[:-1], AK_NAME + b"\x00"):
        with pytest.raises(Malformed, match="tpm-name"):
            make_credential(ek, name, SECRET)
    for secret in (b"", bytes(SECRET_MAX_BYTES + 1)):
        with pytest.raises(ValueError, match="size"):
            make_credential(ek, AK_NAME, secret)
