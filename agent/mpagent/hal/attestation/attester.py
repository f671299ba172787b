"""OP-TEE's attestation pseudo-TA as attester: for parts whose Linux reaches no manufacturing protection.

What optee_os core/pta/attestation.c does, read for this module (every i.MX build has it, CFG_ATTESTATION_PTA=y):

* command 3 takes a nonce of any size above 0, hashes OP-TEE's own code and constants to 32 bytes, and signs
  SHA-256(nonce || hash) by RSASSA-PSS with MGF1-SHA-256 and a salt of 32 bytes; that digest is signed as it is, not
  hashed again. The output is hash || signature. Our nonce is SHA-256 of the whole message (mpwire.optee);
* the key is made by the first command that needs it and put into secure storage. Where putting it fails that command
  fails, and the next ones use the key in memory, which is lost with the boot; a damaged object is removed, and then
  another key is made. So nobody can tell from outside whether a key has been stored, until the next boot.

It proves a known key, not what Linux runs: the hash is OP-TEE's alone.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from mpagent.errors import HardwareBusy, HardwareGone
from mpagent.hal.optee import Command, MemoryIn, MemoryOut, NobodyAnswered, TeeFailed, ValueOut, ask, ask_built_in
from mpagent.hal.optee.faults import BUSY, OUT_OF_MEMORY
from mpagent.hal.optee.records import Answer
from mpagent.hal.ports import Attestation, AttesterMaterial
from mpwire import optee
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import MP_MESSAGE_MAX_BYTES, OPTEE_MEASUREMENT_BYTES, OPTEE_SIGNATURE_BYTES
from mpwire.registry import ALG_OPTEE_PS256

PTA: Final = UUID("39800861-182a-4720-9b67-2bcd622bc0b5")
"""pta_attestation.h; two drafts of it had other UUIDs and other commands."""
GET_PUBKEY: Final = 0
HASH_TEE_MEMORY: Final = 3
RSASSA_PSS_SHA256: Final = 0x7041_4930
"""TEE_ALG_RSASSA_PKCS1_PSS_MGF1_SHA256 (GlobalPlatform TEE Internal Core API)."""
MODULUS_MAX_BYTES: Final = 512
"""MAX_KEY_SIZE of the pseudo-TA, 4096 bits."""
EXPONENT_MAX_BYTES: Final = 8
KEY_MAKING_MAX_S: Final = 180.0
"""Making 3072 bits of RSA in OP-TEE, once in the life of a storage. Nobody here has timed it on a Cortex-A."""

_NAME: Final = "attestation pseudo-TA"
_NOWHERE: Final = UUID("7c1b0d4e-52c6-4f0e-9d0a-6d70616e6f6e")
"""No TA has it: whoever says so is tee-supplicant."""
_STORAGE_ADVICE: Final = (
    "repair the secure storage (tee-supplicant, its folder or the RPMB), and reboot before this board's key is "
    "registered: until then OP-TEE goes on with a key that it did not store"
)


class OpteeAttester:
    """ports.Attester of kind "optee". Holds nothing open: each call is a session of its own."""

    alg: int = ALG_OPTEE_PS256

    def __init__(self, node: Path, deadline_s: float) -> None:
        self._node = node
        self._deadline_s = deadline_s
        self._material: AttesterMaterial | None = None

    def describe(self) -> AttesterMaterial:
        """The key, read once; OP-TEE makes it where its storage has none, which may take up to KEY_MAKING_MAX_S."""
        if self._material is None:
            public = self._read_key()
            self._material = AttesterMaterial("optee", optee.key_id(public), rsa_public=public)
        return self._material

    def attest(self, message: bytes) -> Attestation:
        """See ports.Attester. What came back is verified first, so that a false signature is told here.

        Raises Malformed for a message out of bounds; OP-TEE is not asked then.
        """
        if not 1 <= len(message) <= MP_MESSAGE_MAX_BYTES:
            raise Malformed(f"an attester signs 1 to {MP_MESSAGE_MAX_BYTES} bytes, not {len(message)}")
        public = self.describe().rsa_public
        assert public is not None  # describe() of this class gives it
        params = (MemoryIn(optee.make_nonce(message)), MemoryOut(OPTEE_MEASUREMENT_BYTES + MODULUS_MAX_BYTES))
        _, output = self._invoke(Command(HASH_TEE_MEMORY, params), self._deadline_s)
        measurement, signature = _split(output)
        try:
            optee.verify_optee(public, message, measurement, signature)
        except Unauthentic as false:
            raise HardwareGone(
                "OP-TEE's attestation key signed something else, or another key signed",
                detail=str(false),
                advice="reboot; if the key has changed then, the secure storage was written anew: register it again",
            ) from false
        return Attestation(signature, measurement=measurement)

    def _read_key(self) -> bytes:
        """Its SubjectPublicKeyInfo, DER."""
        params = (MemoryOut(EXPONENT_MAX_BYTES), MemoryOut(MODULUS_MAX_BYTES), ValueOut())
        exponent, modulus, algorithm = self._invoke(Command(GET_PUBKEY, params), self._choose_deadline())
        # The client answers each parameter by its kind.
        assert isinstance(exponent, bytes) and isinstance(modulus, bytes) and isinstance(algorithm, tuple)
        if algorithm[0] != RSASSA_PSS_SHA256:
            raise HardwareGone(f"the {_NAME} signs by another algorithm than RSASSA-PSS with SHA-256")
        try:
            return optee.write_public(modulus, exponent)
        except Malformed as refused:
            raise HardwareGone(
                f"the {_NAME} gave a key that is not RSA of {optee.KEY_BITS} bits with exponent {optee.EXPONENT}",
                detail=str(refused),
                advice=f"build OP-TEE with CFG_ATTESTATION_PTA_KEY_SIZE={optee.KEY_BITS}, as it comes",
            ) from refused

    def _choose_deadline(self) -> float:
        """Long where a key may have to be made; short where what is missing is tee-supplicant.

        Storage in an RPMB that the kernel serves itself works without one, so its absence alone refuses nothing.
        """
        try:
            with suppress(TeeFailed):  # the usual: somebody looked, and it is nowhere
                ask(self._node, _NOWHERE, (), self._deadline_s)
        except NobodyAnswered:
            return self._deadline_s
        return max(self._deadline_s, KEY_MAKING_MAX_S)

    def _invoke(self, command: Command, deadline_s: float) -> tuple[Answer, ...]:
        """One command in a session of its own. Raises HardwareAbsent, HardwareBusy, HardwareGone."""
        try:
            return _ask(self._node, [command], deadline_s)[0]
        except TeeFailed as failed:
            if failed.at_open:
                raise
            raise HardwareGone(
                f"the {_NAME} cannot use its key", detail=str(failed), advice=_STORAGE_ADVICE
            ) from failed
        except NobodyAnswered as waited:
            raise HardwareGone(
                f"the {_NAME} waits for tee-supplicant, which serves the storage of its key",
                detail=str(waited),
                advice="start tee-supplicant before the agent",
            ) from waited


def _ask(node: Path, commands: Sequence[Command], deadline_s: float) -> tuple[tuple[Answer, ...], ...]:
    """Raises HardwareAbsent without the pseudo-TA, HardwareBusy, and what else calls.ask raises."""
    try:
        return ask_built_in(node, PTA, _NAME, commands, deadline_s)
    except TeeFailed as failed:
        if failed.result not in (BUSY, OUT_OF_MEMORY):
            raise
        raise HardwareBusy("OP-TEE is busy", detail=str(failed)) from failed


def _split(output: Answer) -> tuple[bytes, bytes]:
    """Measurement and signature."""
    whole = OPTEE_MEASUREMENT_BYTES + OPTEE_SIGNATURE_BYTES
    assert isinstance(output, bytes)  # the client answers each parameter by its kind
    if len(output) != whole:
        raise HardwareGone(f"the {_NAME} gave a measurement and signature that have not {whole} bytes together")
    return output[:OPTEE_MEASUREMENT_BYTES], output[OPTEE_MEASUREMENT_BYTES:]


def open_attestation(node: Path, deadline_s: float) -> OpteeAttester:
    """The attester behind OP-TEE's device node. No key is read or made yet; `deadline_s` bounds each call.

    Raises HardwareAbsent (no node, another TEE, an OP-TEE without the pseudo-TA), HardwareGone, HardwareBusy.
    """
    _ask(node, (), deadline_s)
    return OpteeAttester(node, deadline_s)
