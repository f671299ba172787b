"""The Grant as it was heard, read again: who acts on the next image checks the OEM's signature himself.

It stays in the record until no image is to come any more, with what is needed to open it once more: the messages it
answered. Its values are under the board's own `kem` key there, as they were on the line.
"""

from mpagent.acceptance import Accepted, Pending, accept_grant
from mpagent.belief import make_trust
from mpagent.errors import Tampered
from mpagent.hal.ports import Keyring
from mpagent.image import Image
from mpagent.record import Record
from mpwire import labels
from mpwire.errors import Malformed, PeerBroke
from mpwire.limits import CHALLENGE_MAX_BYTES, PROOF_MAX_BYTES
from mpwire.messages.plain import CHALLENGE, PROOF


def reopen(record: Record, image: Image, keyring: Keyring) -> Accepted | None:
    """None where no Grant was kept: nothing was to come.

    The chain is held against the time of the Grant itself, which its signer's life must cover (docs/wire.md 4.4): a
    Grant that was good when it came does not end with the key of eight hours that signed it. A key that was revoked
    since (epoch) counts no more. Raises Tampered: what lies here is not what was accepted.
    """
    if record.grant is None:
        return None
    try:
        accepted = accept_grant(
            record.grant,
            _pending(record),
            image,
            make_trust(record, image)._replace(now=0),
            keyring.find_or_make(labels.DEVICE_KEM),
        )
    except (PeerBroke, Malformed) as error:
        raise Tampered(f"the Grant in the record does not verify: {error}") from error
    if accepted.digest != record.grant_digest:
        raise Tampered("the Grant in the record is not the one that was accepted")
    return accepted


def _pending(record: Record) -> Pending:
    if record.hello is None or record.challenge is None or record.proof is None or record.ueid is None:
        raise Malformed("record: a Grant without the messages it answers")
    challenge = CHALLENGE.decode(record.challenge, CHALLENGE_MAX_BYTES)
    proof = PROOF.decode(record.proof, PROOF_MAX_BYTES)
    return Pending(record.hello, challenge.nonce, record.proof, proof.evidence, record.ueid)
