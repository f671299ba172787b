"""The TPM as attester: EK, AK, quote, credential activation, and proof that a device key lives here."""

import hashlib
from typing import Any, Final

from mpagent.errors import HardwareBusy, NotMine
from mpagent.hal.ports import Attestation, AttesterMaterial, KeyAttestation, Shelf
from mpagent.hal.tpm import endorsement, faults, templates
from mpagent.hal.tpm.blobs import WrappedObject
from mpagent.hal.tpm.chip import Chip
from mpagent.hal.tpm.endorsement import Endorsement
from mpagent.hal.tpm.keys import TpmKeyring
from mpagent.hal.tpm.objects import find_or_make, read_signature
from mpagent.hal.tpm.pcrs import read_pcrs, write_selection
from mpagent.hal.tpm.templates import Template
from mpwire import tpm2
from mpwire.errors import Malformed, MpError
from mpwire.limits import MP_MESSAGE_MAX_BYTES
from mpwire.registry import ALG_TPM_QUOTE_ES256
from mpwire.secret import Secret

AK_NAME: Final = "tpm-ak"
"""Where the Shelf keeps the AK."""
QUOTED_PCRS: Final = tuple(range(8))
"""PCRs 0 to 7 of the SHA-256 bank: firmware, its configuration, boot loader and boot policy (TCG PC Client Platform
Firmware Profile, section 3.3.4). What comes later changes with every update, and is not appraised."""
QUALIFYING_BYTES: Final = 32
ACTIVATED_BYTES: Final = 32
CREDENTIAL_MAX_BYTES: Final = 68
"""A credential of a 32-byte secret, and the seed for a P-256 EK: two lengths and two times 32 bytes each. A TPM may
read over what follows, so that two messages would mean the same."""
_PCR_BYTES: Final = 32
_SELECTION: Final = write_selection(QUOTED_PCRS)
_TRIES: Final = 2


class TpmAttester:
    """Quotes under an AK that is made once and kept wrapped on the Shelf."""

    alg: int = ALG_TPM_QUOTE_ES256

    def __init__(self, chip: Chip, shelf: Shelf) -> None:
        self._chip = chip
        self._shelf = shelf
        self._ak: WrappedObject | None = None
        self._material: AttesterMaterial | None = None
        self._endorsement: Endorsement | None = None

    def ak(self) -> WrappedObject:
        """The AK, made at the first call of the first run. Raises NotMine and Tampered as a keyring does."""
        if self._ak is None:
            self._ak = find_or_make(self._chip, self._shelf, AK_NAME, templates.ATTESTATION)
        return self._ak

    def ek(self) -> Template:
        """The template of the EK that this TPM shows."""
        return self._find_endorsement().template

    def _find_endorsement(self) -> Endorsement:
        if self._endorsement is None:
            self._endorsement = endorsement.find_endorsement(self._chip)
        return self._endorsement

    def describe(self) -> AttesterMaterial:
        """EK and AK as TPMT_PUBLIC, and the EK's certificate where its maker left one in the TPM."""
        if self._material is None:
            ak_public, shown = self.ak().public, self._find_endorsement()
            ek_public = endorsement.read_public(self._chip, shown.template)
            self._material = AttesterMaterial(
                kind="tpm",
                attester_id=tpm2.make_name(ek_public) + tpm2.make_name(ak_public),
                ek_public=ek_public,
                ek_certificate=shown.certificate,
                ak_public=ak_public,
            )
        return self._material

    def attest(self, message: bytes) -> Attestation:
        """TPM2_Quote whose qualifyingData is SHA-256(message), with the PCR values its digest stands for.

        PCRs are read apart from the quote; one that was extended in between costs a second quote, two HardwareBusy.
        """
        if not 1 <= len(message) <= MP_MESSAGE_MAX_BYTES:
            raise Malformed(f"an attester signs 1 to {MP_MESSAGE_MAX_BYTES} bytes, not {len(message)}")
        qualifying = hashlib.sha256(message).digest()
        with self._chip.loaded(self.ak(), "loading the AK") as ak:
            for _ in range(_TRIES):
                attest, signature = self._quote(ak, qualifying)
                values = read_pcrs(self._chip, QUOTED_PCRS)
                # A quote ends with its PCR digest (TPM 2.0 Library, Part 2, section 10.12.1).
                if tpm2.digest_pcrs(values) == attest[-_PCR_BYTES:]:
                    pcrs = tuple(zip(QUOTED_PCRS, values, strict=True))
                    return Attestation(signature=signature, attest=attest, pcrs=pcrs)
        raise HardwareBusy("PCRs change while they are quoted: try again when the boot is over")

    def _quote(self, ak: Any, qualifying: bytes) -> tuple[bytes, bytes]:
        attest, signature = self._chip.run("quoting", lambda esapi: esapi.quote(ak, _SELECTION, qualifying))
        return bytes(attest), read_signature(signature)


class TpmActivator:
    """TPM2_ActivateCredential under the EK's policy."""

    def __init__(self, chip: Chip, attester: TpmAttester) -> None:
        self._chip = chip
        self._attester = attester

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> Secret:
        """See ports.Activator. The secret is encrypted on the bus."""
        template = self._attester.ek()
        seed_max_bytes = tpm2.RSA_BYTES if template is templates.ENDORSEMENT_RSA else CREDENTIAL_MAX_BYTES
        if len(id_object) > CREDENTIAL_MAX_BYTES or len(encrypted_secret) > seed_max_bytes:
            raise Malformed("a credential blob is longer than any of ours")
        tss = self._chip.tss
        credential = tss.TPM2B_ID_OBJECT(credential=id_object)
        secret = tss.TPM2B_ENCRYPTED_SECRET(secret=encrypted_secret)
        private = self._chip.private_session(inward=False)
        with (
            self._chip.loaded(self._attester.ak(), "loading the AK") as ak,
            endorsement.loaded(self._chip, template) as ek,
            endorsement.authorised(self._chip) as policy,
        ):
            opened = self._chip.run(
                "activating a credential",
                lambda esapi: esapi.activate_credential(ak, ek, credential, secret, session1=private, session2=policy),
                _other_keys,
            )
        activated = Secret(bytes(opened))
        if len(activated) != ACTIVATED_BYTES:
            raise Malformed(f"a credential of {len(activated)} bytes, not {ACTIVATED_BYTES}")
        return activated


class TpmKeyProver:
    """TPM2_Certify of device keys under the AK."""

    def __init__(self, chip: Chip, attester: TpmAttester, keyring: TpmKeyring) -> None:
        self._chip = chip
        self._attester = attester
        self._keyring = keyring

    def prove(self, label: str, qualifying: bytes) -> KeyAttestation:
        """See ports.KeyProver."""
        if len(qualifying) != QUALIFYING_BYTES:
            raise Malformed(f"qualifying data has {QUALIFYING_BYTES} bytes, not {len(qualifying)}")
        wrapped = self._keyring.find_or_make(label).wrapped
        scheme = self._chip.tss.TPMT_SIG_SCHEME(scheme=self._chip.tss.TPM2_ALG.NULL)
        with (
            self._chip.loaded(self._attester.ak(), "loading the AK") as ak,
            self._chip.loaded(wrapped, "loading a device key") as key,
        ):
            attest, signature = self._chip.run(
                "certifying a device key", lambda esapi: esapi.certify(key, ak, qualifying, scheme)
            )
        return KeyAttestation(public=wrapped.public, attest=bytes(attest), signature=read_signature(signature))


def _other_keys(code: int) -> MpError | None:
    return NotMine("a credential for another EK or AK") if faults.is_about_input(code) else None
