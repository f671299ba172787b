"""The backend `optee`: the RSA key that OP-TEE's attestation pseudo-TA makes and keeps on each device."""

from mpagent.hal.attestation.attester import PTA, OpteeAttester, open_attestation

__all__ = ["PTA", "OpteeAttester", "open_attestation"]
