"""Whether this boot is closed: a live proof that needs no TA of ours, and what is said where there is none."""

from collections.abc import Callable, Collection

from mpagent.errors import HardwareGone
from mpagent.hal.ports import Attester, LifeCycle
from mpwire import labels, mp
from mpwire.errors import Malformed, Unauthentic

CHALLENGE_BYTES = 32


def signs_with_pinned_key(attester: Attester, key_ids: Collection[bytes], random: Callable[[int], bytes]) -> bool:
    """Whether the chip signed fresh randomness just now with a key out of `key_ids`, SHA-256(X || Y) each.

    An open part signs with a test key, and one whose fuse was blown a moment ago still does; a test key is never
    pinned. Raises HardwareGone for a signature that is not the key's.
    """
    material = attester.describe()
    if material.kind != "mp" or material.public_key is None or mp.key_id(material.public_key) not in key_ids:
        return False
    challenge = labels.CLOSED_PROOF + random(CHALLENGE_BYTES)
    made = attester.attest(challenge)
    try:
        mp.verify_mp(material.public_key, challenge, made.mpmr or b"", made.signature)
    except (Malformed, Unauthentic) as error:
        raise HardwareGone("the chip's signature does not verify under its own MP key", detail=str(error)) from error
    return True


def say_why_not(life_cycle: LifeCycle | None, proof: str) -> str:
    """Why a boot does not count as closed, with the next step; `proof` is what would show it, as a clause."""
    if life_cycle is LifeCycle.CLOSED_PENDING_REBOOT:
        said = "the closed fuse is blown, and nothing shows that this boot is closed"
        return f"{said}: reboot once; if that was done, {proof}"
    if life_cycle is LifeCycle.CLOSED:
        return f"the part says closed, but nothing in this boot proves it: {proof}"
    return "the part is not closed: sealing here would use a public test key; close it and reboot"
