"""Device keys in the token: P-256, made there, used by CKM_ECDSA and CKM_ECDH1_DERIVE, never extractable.

What the Shelf keeps of a key says which token has it and under which id, and holds nothing secret:

    "MPK1" | id of the root, 16 bytes | id of the key, 16 bytes | public point, 65 bytes

Order of making: root, key pair, Shelf, and only then may anybody hear the public half. A cut before the Shelf leaves a
pair without a record; the next start finds it by its label and makes no second one.
"""

import hashlib
import os
from typing import Any, Final, NamedTuple

from mpagent.errors import HardwareGone, NotMine, Tampered
from mpagent.hal.pkcs11 import objects
from mpagent.hal.pkcs11.objects import ID_BYTES
from mpagent.hal.pkcs11.token import Token
from mpagent.hal.ports import Shelf
from mpwire import p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret

NEEDS: Final = ("EC_KEY_PAIR_GEN", "ECDSA", "ECDH1_DERIVE")
_CURVE: Final = bytes.fromhex("06082a8648ce3d030107")
"""CKA_EC_PARAMS of P-256: its object identifier (RFC 5480 section 2.1.1.1), DER."""
_POINT_HEAD: Final = b"\x04\x41"
"""DER OCTET STRING of 65 bytes, in which CKA_EC_POINT wraps the point (PKCS#11 section 6.3.3)."""
_MAGIC: Final = b"MPK1"


class KeyRecord(NamedTuple):
    """What the Shelf keeps of one key."""

    root_id: bytes
    key_id: bytes
    point: bytes

    def write(self) -> bytes:
        """The bytes at rest."""
        return _MAGIC + self.root_id + self.key_id + self.point


def read_record(blob: bytes) -> KeyRecord | None:
    """What `KeyRecord.write` wrote, or None when these bytes are anything else."""
    if not blob.startswith(_MAGIC) or len(blob) != len(_MAGIC) + 2 * ID_BYTES + p256.POINT_BYTES:
        return None
    rest = blob[len(_MAGIC) :]
    return KeyRecord(rest[:ID_BYTES], rest[ID_BYTES : 2 * ID_BYTES], rest[2 * ID_BYTES :])


class Pkcs11Key:
    """One device key."""

    def __init__(self, token: Token, private: Any, point: bytes) -> None:
        self._token = token
        self._private = private
        self._point = point

    def public_key(self) -> bytes:
        """As the Shelf keeps it; the token showed by a signature in this process that it has the other half."""
        return self._point

    def sign(self, message: bytes) -> bytes:
        """CKM_ECDSA over SHA-256(message), hashed here; r || s as PKCS#11 section 6.3.1 spells it."""
        digest, mechanism = hashlib.sha256(message).digest(), self._token.p11.Mechanism.ECDSA
        signature = bytes(self._token.run("signing", lambda _session: self._private.sign(digest, mechanism=mechanism)))
        if len(signature) != p256.SIGNATURE_BYTES:
            raise HardwareGone(f"the PKCS#11 token gave a signature of {len(signature)} bytes")
        return signature

    def ecdh(self, peer: bytes) -> Secret:
        """CKM_ECDH1_DERIVE with CKD_NULL into a session object, whose value is read and which is then destroyed.

        Only that object is extractable: the shared X has to come out, because HPKE's key schedule is ours.
        """
        # Checked here and not left to the token: one that takes any point gives away its key piece by piece.
        p256.load_point(peer)
        p11 = self._token.p11
        readable = {p11.Attribute.SENSITIVE: False, p11.Attribute.EXTRACTABLE: True}

        def derive(_session: Any) -> bytes:
            shared = self._private.derive_key(
                p11.KeyType.GENERIC_SECRET,
                8 * p256.SCALAR_BYTES,
                store=False,
                capabilities=p11.MechanismFlag(0),
                mechanism=p11.Mechanism.ECDH1_DERIVE,
                mechanism_param=(p11.KDF.NULL, None, peer),
                template=readable,
            )
            try:
                return bytes(shared[p11.Attribute.VALUE])
            finally:
                shared.destroy()

        value = self._token.run("agreeing on a secret", derive)
        if not 1 <= len(value) <= p256.SCALAR_BYTES:
            raise HardwareGone(f"the PKCS#11 token gave a shared secret of {len(value)} bytes")
        return Secret(value.rjust(p256.SCALAR_BYTES, b"\0"))


class Pkcs11Keyring:
    """Device keys by label: in the token as mpagent-key-<label>, on the Shelf as pkcs11-key-<label>."""

    def __init__(self, token: Token, shelf: Shelf) -> None:
        self._token = token
        self._shelf = shelf
        self._found: dict[str, Pkcs11Key] = {}

    def find_or_make(self, label: str) -> Pkcs11Key:
        """See ports.Keyring; a key found once is not looked for again."""
        if label not in self._found:
            blob = self._shelf.find(f"pkcs11-key-{label}")
            self._found[label] = self._make(label) if blob is None else self._open(label, blob)
        return self._found[label]

    def _open(self, label: str, blob: bytes) -> Pkcs11Key:
        """The key of this record, proven; nothing is made."""
        name, record = f"pkcs11-key-{label}", read_record(blob)
        if record is None:
            raise Tampered(f"{name} on the state partition is damaged")
        root = objects.find_root(self._token)
        if root is None or root.ident != record.root_id:
            raise NotMine(f"{name} is in another PKCS#11 token, or this one was initialised anew")
        privates = self._find(label, "PRIVATE_KEY", record.key_id)
        if len(privates) != 1:
            self._token.confirm()
            raise Tampered(f"{name} is on the state partition, and the PKCS#11 token has {len(privates)} such keys")
        return self._prove(name, privates[0], record.point)

    def _make(self, label: str) -> Pkcs11Key:
        """Durable in the token first, then on the Shelf; a pair that a cut left without record is taken up again."""
        name, root = f"pkcs11-key-{label}", objects.find_or_make_root(self._token)
        private, public = self._find_pair(label) or self._generate(label)
        point = self._read_point(name, public)
        key = self._prove(name, private, point)
        ident = bytes(self._token.read(f"looking at {name}", private, self._token.p11.Attribute.ID))
        self._shelf.put(name, KeyRecord(root.ident, ident, point).write())
        return key

    def _find_pair(self, label: str) -> tuple[Any, Any] | None:
        """The one whole pair of this label that is ours. Halves that a cut inside the token left were never heard of,
        and stay; so does what was planted."""
        pairs = []
        for private in self._find(label, "PRIVATE_KEY"):
            if objects.find_flaw(self._token, private, "EC", "looking at keys"):
                continue
            ident = bytes(self._token.read("looking at keys", private, self._token.p11.Attribute.ID) or b"")
            publics = self._find(label, "PUBLIC_KEY", ident) if len(ident) == ID_BYTES else []
            pairs += [(private, public) for public in publics]
        if len(pairs) > 1:
            raise Tampered(f"the PKCS#11 token holds {len(pairs)} pairs mpagent-key-{label}: another program added one")
        return pairs[0] if pairs else None

    def _find(self, label: str, kind: str, ident: bytes | None = None) -> list[Any]:
        p11 = self._token.p11
        wanted = {p11.Attribute.CLASS: getattr(p11.ObjectClass, kind), p11.Attribute.LABEL: f"mpagent-key-{label}"}
        if ident is not None:
            wanted[p11.Attribute.ID] = ident
        return self._token.find(f"looking for mpagent-key-{label}", wanted)

    def _generate(self, label: str) -> tuple[Any, Any]:
        p11 = self._token.p11
        flags = p11.MechanismFlag
        never_out = {p11.Attribute.EXTRACTABLE: False, p11.Attribute.SENSITIVE: True}

        def make(session: Any) -> tuple[Any, Any]:
            curve = session.create_domain_parameters(p11.KeyType.EC, {p11.Attribute.EC_PARAMS: _CURVE}, local=True)
            public, private = curve.generate_keypair(
                id=os.urandom(ID_BYTES),
                label=f"mpagent-key-{label}",
                store=True,
                capabilities=flags.SIGN | flags.VERIFY | flags.DERIVE,
                mechanism=p11.Mechanism.EC_KEY_PAIR_GEN,
                private_template=never_out,
            )
            return private, public

        return self._token.run(f"making mpagent-key-{label}", make)

    def _read_point(self, name: str, public: Any) -> bytes:
        """The point of a public key object; some tokens leave out the DER around it."""
        spelled = bytes(self._token.read(f"looking at {name}", public, self._token.p11.Attribute.EC_POINT) or b"")
        point = spelled if len(spelled) == p256.POINT_BYTES else spelled.removeprefix(_POINT_HEAD)
        try:
            p256.load_point(point)
        except Malformed:
            raise Tampered(f"{name}: the public half in the PKCS#11 token is not a point of P-256") from None
        return point

    def _prove(self, name: str, private: Any, point: bytes) -> Pkcs11Key:
        """Ours by its attributes, and the other half of this point by a fresh signature."""
        flaw = objects.find_flaw(self._token, private, "EC", f"looking at {name}")
        if flaw:
            raise Tampered(f"{name} in the PKCS#11 token is not a key of ours: {flaw}")
        key, question = Pkcs11Key(self._token, private, point), os.urandom(32)
        try:
            p256.verify(point, question, key.sign(question))
        except (Unauthentic, Malformed):
            raise Tampered(f"{name}: the key in the PKCS#11 token does not belong to this public half") from None
        return key
