"""Writes every vector file beside it: python -m tests.vectors.generate. A rerun changes nothing, and a test says so."""

import hashlib
import json

from mpwire import mp, tpm2
from tests.vectors import asking, attesters, cards, exchange, golden, hearing, rsa, spelling, structure, trusting, world
from tests.vectors.format import HERE, render


def render_world() -> str:
    """What a stranger needs to make the same bytes: the keys' scalars and the two clocks."""
    named = {**vars(world), "CARD": cards.CARD, "CARD_ROOT": cards.ROOT_KEY, "CARD_AUTHORITY": cards.BETWEEN_KEY}
    keys = {name: one for name, one in named.items() if isinstance(one, world.FixedKey)}
    told = {
        "now": world.NOW,
        "device_floor": world.BUILD_TIME,
        "realm": world.REALM,
        "product": world.PRODUCT,
        "job": world.JOB,
        "issuer_epoch": world.EPOCH,
        "symmetric_root": world.SYMMETRIC_ROOT.hex(),
        "policy": {
            **world.POLICY,
            "mp_keys": [exchange.attester_id("mp").hex()],
            "mpmrs": [mp.MPMR_OPTEE.hex()],
            "srk_hashes": [exchange.SRK_HASH.hex()],
            "eks": [tpm2.make_name(world.EK_PUBLIC).hex()],
            "card_roots": [cards.ROOT_PEM],
            "optee_rule": "listed",
            "sealers": [],
            "keyrings": [],
            "optee_keys": [exchange.attester_id("optee").hex()],
            "optee_measurements": [rsa.MEASUREMENT.hex()],
        },
        "ueid": {kind: exchange.ueid(kind).hex() for kind in attesters.KINDS},
        "grant": granted(),
        "rsa_keys": {
            name: {"p": f"{one.p:x}", "q": f"{one.q:x}", "public": one.public.hex()}
            for name, one in (("optee", rsa.OPTEE), ("other_optee", rsa.OTHER_OPTEE))
        },
        "keys": {
            name.lower(): {"scalar": one.to_scalar().reveal().hex(), "point": one.public_key().hex()}
            for name, one in sorted(keys.items())
        },
    }
    return json.dumps(told, indent=1) + "\n"


def granted() -> dict[str, object]:
    """What the ledger holds of the Grant in golden.json."""
    checks = {
        slot.name: {
            "version": slot.version,
            "check": None if slot.check is None else slot.check.hex(),
            "escrowed": slot.escrow is not None,
        }
        for slot in exchange.make_slots()
    }
    return {"digest": hashlib.sha256(golden.GRANT).hexdigest(), "checks": checks}


def render_all() -> dict[str, str]:
    """Text by file name."""
    return {
        "world.json": render_world(),
        "golden.json": render(golden.vectors()),
        "structure.json": render(structure.vectors()),
        "decoder.json": render(spelling.decoder_vectors()),
        "cose.json": render(spelling.cose_vectors()),
        "trust.json": render(trusting.vectors()),
        "issuer.json": render(asking.vectors()),
        "device.json": render(hearing.vectors()),
    }


def main() -> None:
    """Write them all."""
    for name, text in render_all().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
