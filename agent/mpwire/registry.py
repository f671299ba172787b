"""Every number that goes on the wire, in one place (docs/wire.md section 8).

Private ids lie below -70000, outside every range IANA assigns (RFC 9052 section 11, RFC 9053, RFC 8392).
"""

from typing import Final

WIRE_VERSION: Final = 1

# Message numbers: key 0 of a plain message.
HELLO: Final = 1
CHALLENGE: Final = 2
PROOF: Final = 3
GRANT: Final = 4
RECEIPT: Final = 5
CLOSED: Final = 6
REFUSAL: Final = 7

# COSE algorithms (RFC 9053; private use below -65536).
ALG_ES256: Final = -7
ALG_MP_ES256: Final = -70001
ALG_MP_ES384: Final = -70002
ALG_MP_ES512: Final = -70003
ALG_TPM_QUOTE_ES256: Final = -70010
ALG_OPTEE_PS256: Final = -70020
UNVERIFIED_ALGS: Final = frozenset({ALG_MP_ES384, ALG_MP_ES512})
"""Reserved and refused as `profile-unverified`: no vector of a real part exists for them."""
UNVERIFIED_PROFILES: Final = frozenset({"relay/1"})
"""MP profiles specified and refused as `profile-unverified`: no trusted application makes them yet."""

# COSE header parameters (RFC 9052 section 3.1, RFC 9360, RFC 9596).
HEADER_ALG: Final = 1
HEADER_CRIT: Final = 2
HEADER_KID: Final = 4
HEADER_TYP: Final = 16
HEADER_X5CHAIN: Final = 33
HEADER_MPMR: Final = -70101
HEADER_PROFILE: Final = -70102
HEADER_ISSUER_CHAIN: Final = -70103
HEADER_ATTEST_PCRS: Final = -70104
HEADER_TRUST_UPDATE: Final = -70105

# EAT and CWT claims (RFC 9711, RFC 8747).
CLAIM_CNF: Final = 8
CLAIM_NONCE: Final = 10
CLAIM_UEID: Final = 256
CLAIM_OEMID: Final = 258
CLAIM_HWMODEL: Final = 259
CLAIM_PROFILE: Final = 265
CLAIM_SWNAME: Final = 270
CLAIM_SWVERSION: Final = 271
CLAIM_MEASUREMENTS: Final = 273
CLAIM_INTUSE: Final = 275
CLAIM_KEM_KEY: Final = -70201
CLAIM_ATTESTER_ID: Final = -70202
CLAIM_HELLO_HASH: Final = -70203
CLAIM_CHALLENGE_HASH: Final = -70204
CLAIM_REALM: Final = -70205
CLAIM_LIFE_CYCLE: Final = -70206
CLAIM_SRK_HASH: Final = -70207
CLAIM_SLOTS_WANTED: Final = -70208
CLAIM_CSR_HASHES: Final = -70209
CLAIM_AGENT_VERSION: Final = -70210
CLAIM_PROVENANCE: Final = -70211
CLAIM_KEY_ATTESTATION_HASHES: Final = -70212
CLAIM_HARDWARE_IDS: Final = -70213
CLAIM_PRODUCT: Final = -70214
CLAIM_BACKENDS: Final = -70215

EAT_PROFILE: Final = "urn:mpagent:eat:1"
INTUSE_PROVISIONING: Final = 3

CONTENT_TYPE: Final = "application/cbor"
PATH: Final = "/mpagent/1"
"""One path for every message: a body says itself what it is."""
IMAGE_PATH: Final = "/mpagent/1/image/"
"""Before the hexadecimal SHA-256 of a production image (docs/wire.md 4.9)."""
