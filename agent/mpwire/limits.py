"""Every bound of the wire, with its unit, reason and source. Enforced before memory is taken."""

from typing import Final

HELLO_MAX_BYTES: Final = 8_192
"""TPM: an EK certificate of 2 KiB and two public areas, rounded up. Source: wire.md 4.1."""
CHALLENGE_MAX_BYTES: Final = 8_192
"""Nonce, claims and a TPM credential blob. Source: wire.md 4.2."""
PROOF_MAX_BYTES: Final = 65_536
"""Hello and Challenge repeated, evidence, 16 CSRs and two key attestations. Source: wire.md 4.3."""
GRANT_MAX_BYTES: Final = 131_072
"""Three inline slots of 32 KiB, certificates and framing, rounded up. Source: wire.md 4.4."""
RECEIPT_MAX_BYTES: Final = 16_384
"""64 slots with their check values, image digests, escrow of small values. Source: wire.md 4.5."""
CLOSED_MAX_BYTES: Final = 16_384
"""An inclusion path of at most 64 hashes, an entry and a signed head. Source: wire.md 4.6."""
REFUSAL_MAX_BYTES: Final = 1_024
"""A check's name and a number. Source: wire.md 4.7."""
MESSAGE_MAX_BYTES: Final = GRANT_MAX_BYTES
"""The largest of all: what a link reads at most before it knows which message it is."""

SLOT_VALUE_MAX_BYTES: Final = 32_768
"""Inline value of one slot; larger ones travel beside the Grant. Source: wire.md 4.4."""
SLOTS_MAX: Final = 64
"""Slots of one product."""
MP_MESSAGE_MAX_BYTES: Final = 4_096
"""What CAAM's MPSign takes through OP-TEE in one call. Source: OP-TEE caam_mp.c (docs/hardware.md)."""
DEPTH_MAX: Final = 16
"""Nesting of CBOR; our deepest message needs 7."""
NAME_MAX_BYTES: Final = 64
"""Product, job, slot and check names, in UTF-8 bytes."""
ISSUER_CHAIN_MAX: Final = 2
"""A role certificate under the root, and one short-lived key under that. Source: wire.md 5.1."""
DELEGATED_MAX_S: Final = 28_800
"""Life of the second certificate of a chain: one shift of 8 hours. Source: wire.md 5.1."""
ROLE_MAX_S: Final = 7_776_000
"""Life of a role certificate: 90 days, so that a lost key ends by itself. Source: wire.md 5.1."""
IMPORT_RECORDS_MAX: Final = 4_096
"""Records of one import list: a reel of boards with a key each, and a transaction of a second. Source: wire.md 5.5."""
IMPORT_MAX_BYTES: Final = 2_101_248
"""4,096 records of at most 512 bytes, and 4 KiB of framing and signature. Source: wire.md 5.5."""
CHALLENGE_LIFE_S: Final = 600
"""How long a challenge may be answered: a slow TPM and a slow line, with room. Source: wire.md 4.2."""
OPTEE_MEASUREMENT_BYTES: Final = 32
OPTEE_SIGNATURE_BYTES: Final = 384
"""RSA of 3072 bits, CFG_ATTESTATION_PTA_KEY_SIZE as OP-TEE ships it."""
RSA_PUBLIC_MAX_BYTES: Final = 512
"""The SubjectPublicKeyInfo takes 422 bytes."""
BUNDLE_MANIFEST_MAX_BYTES: Final = 1_048_576
"""A bundle's envelope: 4,096 components of some 130 bytes, 4,096 UIDs, a chain. Source: wire.md 11.1."""
BUNDLE_COMPONENTS_MAX: Final = 4_096
"""Components of a bundle: four slots of their own for a reel of 1,000 boards."""
BUNDLE_UIDS_MAX: Final = 4_096
"""Boards that a bundle can name."""
BUNDLE_FILE_MAX_BYTES: Final = 4_294_967_295
"""Plain text of one component: what a FAT file system can hold as a file."""
BUNDLE_CHUNK_BYTES: Final = 65_536
"""Plain text of one AEAD message of a component: little to hold, and 0.02 per cent of tags. Source: wire.md 11.3."""
