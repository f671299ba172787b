"""Whom this device believes: the roots of its image, and what updates signed by them added (docs/wire.md 5.2).

The state partition is no place for trust: whoever can write it could add a root of his own. So the record keeps each
TrustUpdate as it came, and its signatures are checked against the image's roots every time it counts.
"""

from mpagent.image import Image
from mpagent.record import Record
from mpwire.errors import PeerBroke
from mpwire.trust import Trust, apply_trust_update


def make_trust(record: Record, image: Image) -> Trust:
    """What is believed now. An update in the record that no believed root signed is worth nothing."""
    trust = _start(record, image)
    for raw in record.trust_updates:
        trust = _believe(raw, trust)
    return trust._replace(epoch=max(trust.epoch, image.epoch, record.epoch))


def keep_update(record: Record, image: Image, update: bytes | None) -> tuple[bytes, ...]:
    """What the record keeps once `update` was believed: every one that brought a root, and the newest.

    So it stays bounded: roots end at mpwire.trust.ROOTS_MAX. An update that changes nothing is not kept.
    """
    bringers, trust = list[bytes](), _start(record, image)
    for raw in record.trust_updates:
        before, trust = trust, _believe(raw, trust)
        if trust.roots != before.roots:
            bringers.append(raw)
    if update is None or _believe(update, trust) == trust:
        return record.trust_updates
    return (*bringers, update)


def _start(record: Record, image: Image) -> Trust:
    return Trust(realm=image.realm, roots=image.roots, epoch=0, now=max(image.build_time, record.time_floor))


def _believe(raw: bytes, trust: Trust) -> Trust:
    try:
        return apply_trust_update(raw, trust)
    except PeerBroke:  # edited on the disk, or signed by a root that a newer image has dropped
        return trust
