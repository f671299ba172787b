"""Bundles of production images as an OEM makes them: by `rauc bundle`, and the archive that SWUpdate takes."""

import datetime
import hashlib
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

COMPATIBLE: Final = "gateway"


class Signer(NamedTuple):
    """Whoever makes updates: a key and its own certificate, as files too."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


def make_signer(folder: Path, name: str) -> Signer:
    """A certificate that signs updates, and nothing above it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now - datetime.timedelta(days=1), now + datetime.timedelta(days=99)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Signer(key, certificate, folder / f"{name}.key", folder / f"{name}.crt")
    made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return made


def make_rauc_bundle(folder: Path, signer: Signer, root: bytes) -> bytes:
    """By the program itself."""
    inside = folder / "bundle"
    inside.mkdir()
    (inside / "root.img").write_bytes(root)
    (inside / "manifest.raucm").write_text(
        f"[update]\ncompatible={COMPATIBLE}\nversion=2.0.0\n[image.rootfs]\nfilename=root.img\n"
    )
    made = folder / "update.raucb"
    keys = [f"--cert={signer.certificate_file}", f"--key={signer.key_file}", f"--keyring={signer.certificate_file}"]
    done = subprocess.run(["rauc", *keys, "bundle", str(inside), str(made)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return made.read_bytes()


def make_swu(signer: Signer, root: bytes, device: str) -> bytes:
    """A cpio archive of a description, its signature, and the root."""
    description = f"""software = {{
        version = "2.0.0";
        hardware-compatibility = [ "1.0" ];
        images: ( {{
            filename = "root.img"; device = "{device}"; type = "raw"; sha256 = "{hashlib.sha256(root).hexdigest()}";
        }} );
    }}""".encode()
    signature = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(description)
        .add_signer(signer.certificate, signer.key, hashes.SHA256())
        .sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary])
    )
    files = {"sw-description": description, "sw-description.sig": signature, "root.img": root, "TRAILER!!!": b""}
    return b"".join(_pack(*one) for one in files.items())


def _pack(name: str, content: bytes) -> bytes:
    """One file in cpio's format with checksums (070702), which SWUpdate compares."""
    told = name.encode() + b"\0"
    fields = [0, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(told), sum(content) & 0xFFFFFFFF]
    return _align(b"070702" + b"".join(b"%08X" % one for one in fields) + told) + _align(content)


def _align(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
