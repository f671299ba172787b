"""What the enrollment asks of a board. A board offers a set of abilities; what a chip lacks is None, not a stub.

Keys are P-256 throughout. A public key is its uncompressed point (SEC 1 section 2.3.3): 65 bytes, 0x04 || X || Y.
A signature is r || s, 64 bytes, never DER (RFC 9053 section 2.1).
Every verb may raise HardwareBusy (nothing happened, ask again), HardwareLockout or HardwareGone.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from mpwire.secret import Secret


class LifeCycle(IntEnum):
    """Life cycle as docs/wire.md section 7 numbers it."""

    OPEN = 1
    CLOSED_PENDING_REBOOT = 2
    CLOSED = 3
    FIELD_RETURN = 4


class Provenance(IntEnum):
    """Who vouches for a claim (docs/wire.md section 7), from strong to weak."""

    ATTESTER = 1
    SECURE_WORLD = 2
    KERNEL = 3
    IMAGE = 4


class SocFacts(NamedTuple):
    """What the chip says of itself. None means not knowable here, and is left out of the evidence."""

    family: str
    """Short lower-case SoC family, e.g. "imx8mm"; "generic" where unknown. 1 to 32 bytes."""
    uid: bytes | None
    """Fuse UID, 8 bytes (16 on i.MX 8ULP and 9), big-endian as printed by /sys/devices/soc0/serial_number."""
    life_cycle: LifeCycle | None
    """Fuse and live state taken together: CLOSED only if the running boot is closed as well."""
    srk_hash: bytes | None
    """Hash of the SRK table as fused: SHA-256, 32 bytes; on 8QM and 8QXP SHA-512, 64 bytes."""
    provenance: Mapping[str, Provenance] = MappingProxyType({})
    """For each of "uid", "life_cycle", "srk_hash" that is not None."""
    closed_by: str = ""
    """How CLOSED was shown in this boot: "mp-key", "secure-world", "open-blob"; empty where nothing showed it."""


class Soc(Protocol):
    """Identity and life cycle of the part."""

    def read_facts(self) -> SocFacts:
        """Read fuses and live state afresh on every call; never opens anything for writing."""


class AttesterMaterial(NamedTuple):
    """The public half of an attester; Hello carries all but `public_key` (docs/wire.md 4.1)."""

    kind: str
    """"mp", "tpm", "card" or "optee"."""
    attester_id: bytes
    """mp: SHA-256 of X || Y. tpm: EK Name || AK Name, 68 bytes. card: SHA-256 of the certificate.
    optee: SHA-256 of `rsa_public`."""
    profile: str | None = None
    """mp only: "raw" or "relay/1"."""
    public_key: bytes | None = None
    """mp and card: the 65-byte point. That of mp stays on the board: under mp_use `secret` it is a secret."""
    ek_public: bytes | None = None
    """tpm only: TPMT_PUBLIC of the EK."""
    ek_certificate: bytes | None = None
    """tpm only, where the NV index holds one: DER."""
    ak_public: bytes | None = None
    """tpm only: TPMT_PUBLIC of the AK."""
    x5chain: tuple[bytes, ...] = ()
    """card only: DER, leaf first."""
    rsa_public: bytes | None = None
    """optee only: SubjectPublicKeyInfo, DER (mpwire.optee.write_public)."""


class Attestation(NamedTuple):
    """One signature by the attester and what the chip returned beside it."""

    signature: bytes
    """mp: r || s, 64 bytes. tpm: r || s, 64 bytes, over `attest`. card: r || s. optee: RSASSA-PSS, 384 bytes."""
    mpmr: bytes | None = None
    """mp only: the 32 bytes that the chip hashed before the message."""
    attest: bytes | None = None
    """tpm only: TPMS_ATTEST of the quote, extraData = SHA-256(message)."""
    pcrs: tuple[tuple[int, bytes], ...] = ()
    """tpm only: (index, SHA-256 bank value) for every PCR the quote selects, rising."""
    measurement: bytes | None = None
    """optee only: OP-TEE's hash of its own memory, 32 bytes, which the PTA signed after the nonce."""


class Attester(Protocol):
    """The key that proves what the board is, not which one (mp), or which chip (tpm, card, optee)."""

    alg: int
    """COSE algorithm id, docs/wire.md section 8."""

    def describe(self) -> AttesterMaterial:
        """The same answer on every call and after every reboot."""

    def attest(self, message: bytes) -> Attestation:
        """Sign a whole Sig_structure of 1 to 4096 bytes; the hardware hashes it."""


class ClassKey(Protocol):
    """The MP public key of the running boot where it is a secret (mp_use `secret`): opens bundles, never signs."""

    def extract(self) -> Secret:
        """PRK, 32 bytes (docs/wire.md 11.2): the same for all parts of a class in one state of life.

        An open part has a test key, and so has one that was just closed until it boots again.
        """


class Activator(Protocol):
    """TPM only: shows that EK and AK live in one TPM."""

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> Secret:
        """TPM2_ActivateCredential: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET contents in, 32-byte secret out.

        Raises NotMine: the credential was made for another EK or AK.
        """


class DeviceKey(Protocol):
    """A private key of this device. Its bytes are never seen outside the backend."""

    def public_key(self) -> bytes:
        """65 bytes; the same on every call and after every reboot."""

    def sign(self, message: bytes) -> bytes:
        """ES256 over the whole message: r || s, 64 bytes."""

    def ecdh(self, peer: bytes) -> Secret:
        """P-256 Diffie-Hellman with a peer's 65-byte point: the X coordinate, 32 bytes.

        Raises Malformed when the point is not on the curve.
        """


class KeyAttestation(NamedTuple):
    """TPM2_Certify of one device key under the AK (docs/wire.md 4.3)."""

    public: bytes
    """TPMT_PUBLIC of the key."""
    attest: bytes
    """TPMS_ATTEST of type TPM_ST_ATTEST_CERTIFY."""
    signature: bytes
    """r || s, 64 bytes, by the AK."""


class Keyring(Protocol):
    """Where device keys live: in hardware, or sealed under the board's sealer."""

    def find_or_make(self, label: str) -> DeviceKey:
        """The key of this label; made, and durable, before anybody can hear its public half.

        Raises Tampered when a key was stored and cannot be had any more on the chip that made it, and
        NotMine when another chip made it.
        """


class KeyProver(Protocol):
    """TPM only: shows that a device key lives in the TPM of the AK."""

    def prove(self, label: str, qualifying: bytes) -> KeyAttestation:
        """TPM2_Certify of the key `find_or_make(label)` gives; `qualifying` (32 bytes) becomes extraData."""


class Sealer(Protocol):
    """Wraps one 32-byte data encryption key for this chip, and nothing else."""

    name: str
    """"sim", "tpm", "caam", "optee": as receipts print it."""

    def seal(self, dek: Secret) -> bytes:
        """A blob of at most 1024 bytes that only this chip in this life-cycle state can open."""

    def unseal(self, blob: bytes) -> Secret:
        """The 32 bytes. Raises NotMine: not sealed here, or sealed before the part was closed."""


class Counter(Protocol):
    """A hardware counter that only rises: the vault's guard against a restored old disk."""

    kind: str
    """As receipts print it, e.g. "tpm-nv"."""

    def read(self) -> int:
        """The present value."""

    def raise_to(self, value: int) -> None:
        """Make it at least `value`; a second call with the same value changes nothing."""


class Shelf(Protocol):
    """Named small blobs on the state partition, for backends whose wrapped keys live outside the chip."""

    def find(self, name: str) -> bytes | None:
        """The blob as last put, or None."""

    def put(self, name: str, blob: bytes) -> None:
        """Durable when it returns; never half-written. Raises StorageFull, StorageBroke."""


class Light(Enum):
    """What a person at the line tells apart from two metres away."""

    OFF = "off"
    WORKING = "working"
    """A heartbeat."""
    PASS = "pass"
    """On, and steady."""
    FAIL = "fail"
    """Blinking fast."""


class Indicator(Protocol):
    """A lamp for the line. Nothing depends on it."""

    def show(self, light: Light) -> None:
        """Until the next call; the same light again is fine. Raises HardwareGone: the lamp may show anything now."""


class Board(NamedTuple):
    """The abilities of one board, as `compose` put them together."""

    soc: Soc
    attester: Attester
    sealer: Sealer
    keyring: Keyring
    activator: Activator | None = None
    key_prover: KeyProver | None = None
    counter: Counter | None = None
    class_key: ClassKey | None = None
    """Under mp_use `secret` alone, beside an attester that signs nothing; None too where the engine is shut."""
    chosen: Mapping[str, str] = MappingProxyType({})
    """The backend that is there for "soc", "attest", "seal", "keys" and "counter", by its name in anchors.toml."""
