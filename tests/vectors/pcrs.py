"""pcrs.json: PCR approvals with the digests a TPM makes of them (python -m tests.vectors.pcrs).

`policy`, `reference`, `name` and `auth_policy` are those of docs/wire.md 5.4; the authority's key is the fixed key
"pcr-authority" (tests/vectors/world.py). That a TPM makes the same digests is tested in tests/mpagent/test_tpm_pcrs.py.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from mpwire import pcr_policy, tpm2
from mpwire.codec import encode
from tests.vectors import world
from tests.vectors.format import HERE, Vector, render

FILE: Final = "pcrs.json"
AUTHORITY: Final = world.FixedKey("pcr-authority")
LOADER: Final = (4, world.fill("pcr-4", 32))
STATE: Final = (7, world.fill("pcr-7", 32))
CLEAN: Final = (12, bytes(32))


def _good(name: str, *pcrs: tuple[int, bytes], realm: str = world.REALM) -> Vector:
    raw = pcr_policy.write_approval(realm, world.PRODUCT, pcrs, AUTHORITY.sign)
    reference = pcr_policy.make_reference(realm, world.PRODUCT)
    return {
        "name": name,
        "message": "pcr-approval",
        "kind": "ok",
        "rule": "ok",
        "authority": AUTHORITY.public_key().hex(),
        "policy": pcr_policy.pcr_policy(pcrs).hex(),
        "reference": reference.hex(),
        "key_name": tpm2.make_name(pcr_policy.write_authority(AUTHORITY.public_key())).hex(),
        "auth_policy": pcr_policy.seal_policy(AUTHORITY.public_key(), reference).hex(),
        "bytes": raw.hex(),
    }


def _item(pcrs: Sequence[object], **changes: object) -> dict[int, object]:
    fields = {"version": 1, "realm": world.REALM, "product": world.PRODUCT, "signature": bytes(64), **changes}
    item = {0: fields["version"], 1: fields["realm"], 2: fields["product"], 3: list(pcrs), 4: fields["signature"]}
    return {key: value for key, value in item.items() if value is not None}


def _broken() -> Iterator[tuple[str, str, str, bytes]]:
    """(name, kind, rule, bytes)."""
    row = list(STATE)
    yield "no PCR", "structure", "pcr-approval.pcrs: not an array of 1 to 16", encode(_item([]))
    seventeen = [[index % 16, bytes(32)] for index in range(17)]
    yield "seventeen PCRs", "structure", "pcr-approval.pcrs: not an array of 1 to 16", encode(_item(seventeen))
    yield "PCR 16", "structure", "pcr-approval.pcrs: not an integer of 0 to 15", encode(_item([[16, bytes(32)]]))
    yield "SHA-1 value", "structure", "pcr-approval.pcrs: not a byte string of 32", encode(_item([[7, bytes(20)]]))
    yield "other realm", "structure", "pcr-approval.realm: not one of", encode(_item([row], realm="field"))
    yield "no product", "structure", "pcr-approval: key 2 is missing", encode(_item([row], product=None))
    short = encode(_item([row], signature=bytes(63)))
    yield "short signature", "structure", "pcr-approval.signature: not a byte string of 64", short
    yield "version 2", "structure", "pcr-approval: key 0 is not 1", encode(_item([row], version=2))
    yield "falling PCRs", "encoding", "pcr-approval: pcrs do not rise", encode(_item([row, list(LOADER)]))
    yield "PCR twice", "encoding", "pcr-approval: pcrs do not rise", encode(_item([row, row]))
    yield "nothing measured", "encoding", "pcr-approval: every PCR is zero", encode(_item([list(CLEAN)]))
    yield "bytes behind it", "encoding", "trailing-bytes", encode(_item([row])) + b"\0"


def _unsigned() -> Iterator[tuple[str, bytes]]:
    """(name, bytes): well formed, and not the authority's word for what they say."""
    raw = pcr_policy.write_approval(world.REALM, world.PRODUCT, [STATE], AUTHORITY.sign)
    good = pcr_policy.read_approval(raw)
    forged = pcr_policy.write_approval(world.REALM, world.PRODUCT, [STATE], world.OTHER.sign)
    yield "signed by another key", forged
    for name, changes in (
        ("signature of another product", {"product": "other"}),
        ("signature of another realm", {"realm": "production"}),
    ):
        yield name, encode(_item([list(STATE)], **{**changes, "signature": good.signature}))
    yield "signature of other PCRs", encode(_item([list(LOADER)], signature=good.signature))
    value = [STATE[0], bytes([STATE[1][0] ^ 1]) + STATE[1][1:]]
    yield "signature of another value", encode(_item([value], signature=good.signature))


def vectors() -> list[Vector]:
    """All of them."""
    made = [
        _good("one PCR", STATE),
        _good("three PCRs, one of them zero", LOADER, STATE, CLEAN),
        _good("every PCR", *((index, world.fill(f"pcr-{index}", 32)) for index in range(16))),
        _good("realm production", STATE, realm="production"),
    ]
    common = {"message": "pcr-approval", "authority": AUTHORITY.public_key().hex()}
    made += [
        {"name": name, "kind": kind, "rule": rule, **common, "bytes": raw.hex()} for name, kind, rule, raw in _broken()
    ]
    rule = "pcr-approval-signature"
    made += [{"name": name, "kind": "trust", "rule": rule, **common, "bytes": raw.hex()} for name, raw in _unsigned()]
    return made


def main() -> None:
    """Write the file."""
    (HERE / FILE).write_text(render(vectors()))


if __name__ == "__main__":
    main()
