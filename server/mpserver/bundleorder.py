"""One bundle from what was asked for to a file and a row: checked, sealed, entered, and only then put into its place.

A bundle that is in its place is in the ledger. One that a power cut kept out of it is in the ledger without ever having
left the house: it counts as made, and the next one has its version or a higher one.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mpissuer.policy import Product
from mpserver.bundlemaking import Made, Making, write_bundle
from mpserver.bundleplan import Makers, Piece, Wishes, check_versions, plan_conditions, plan_pieces
from mpserver.errors import NeedsPerson, Usage
from mpserver.mpuse import is_burnt
from mpserver.office import Office
from mpserver.outfile import writing
from mpserver.progress import Progress
from mpserver.state import State
from mpserver.store.bundles import BundleRow, History, digest_row, insert_bundle, read_history
from mpserver.store.products import hide_values, newest_bodies
from mpserver.updatekeys import (
    FIRST,
    expand_under,
    find_vault_name,
    get_authority,
    make_update_key,
    sign_as,
)
from mpwire import registry
from mpwire.bundlekeys import name_secret
from mpwire.cose import thumbprint
from mpwire.messages.bundle import BUNDLE_POLICY, KEY_CHECK_BYTES, Bundle
from mpwire.secret import Secret

SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Order:
    """A bundle to be made under a job."""

    wishes: Wishes
    job: str
    quantity: int | None = None
    """Boards that may be flashed; None: those that are listed, or the job's quota."""
    job_secret: Secret | None = None


class Draft(NamedTuple):
    """A bundle before anything is sealed."""

    bundle: Bundle
    pieces: tuple[Piece, ...]
    quantity: int
    vault_name: str
    history: History


def draft_bundle(state: State, order: Order, random: Callable[[int], bytes] = os.urandom) -> Draft:
    """Everything that can be refused is refused here. Raises Usage, NeedsPerson, NotKept."""
    wishes, now = order.wishes, state.clock.now()
    product = wishes.product
    quota = _check_job(state, order)
    if wishes.expires <= now:
        raise Usage("--expires lies in the past: no board would take the bundle")
    history = read_history(state.connection, product.name, wishes.authority)
    minimum = check_versions(wishes, history)
    vault_name = find_vault_name(state.connection, product, wishes.authority)
    _check_not_burnt(state, order)
    _check_board(state, wishes)
    pieces = plan_pieces(wishes, history, _make_makers(state, product, random))
    bundle = Bundle(
        realm=state.realm,
        product=product.name,
        job=order.job,
        authority=wishes.authority,
        version=wishes.version,
        minimum=minimum,
        made_at=now,
        expires=wishes.expires,
        conditions=plan_conditions(wishes),
        salt=random(SALT_BYTES),
        components=tuple(one.component for one in pieces),
        policy_digest=digest_policy(state, product.name),
        digests=(),
        key_check=bytes(KEY_CHECK_BYTES),
        secret_id=None if order.job_secret is None else name_secret(order.job_secret),
    )
    return Draft(bundle, pieces, _count_boards(order, quota), vault_name, history)


def make_bundle(state: State, order: Order, draft: Draft, out: Path, *, force: bool) -> Made:
    """Raises StateBroke, NeedsPerson; then there is no such file, or the one before."""
    making = _make_making(state, order, draft)
    with writing(out, force=force) as new:
        made = write_bundle(new.file, making, draft.pieces, Progress("sealing"), out)
        new.sync()
        _enter(state, order, draft, made)
        new.keep()
    return made


def digest_policy(state: State, product: str) -> bytes:
    """SHA-256 of the product file with each static value as its length: the manifest is read at the factory."""
    return hashlib.sha256(
        hide_values(dict(newest_bodies(state.connection, state.authority))[product]).encode()
    ).digest()


def _check_job(state: State, order: Order) -> int:
    """Its quota. Raises NeedsPerson."""
    row = state.connection.execute("SELECT product, quota, state FROM jobs WHERE name = ?", (order.job,)).fetchone()
    if row is None:
        raise NeedsPerson(f"there is no job {order.job}: `mpserver job list` shows all")
    product, quota, stands = row
    if product != order.wishes.product.name:
        raise NeedsPerson(f"job {order.job} is for product {product}")
    if stands not in ("approved", "open"):
        raise NeedsPerson(f"job {order.job} is {stands}; bundles are made under an open job")
    return int(quota)


def _check_not_burnt(state: State, order: Order) -> None:
    """A class key that signed opens a bundle for anybody, unless a job secret is needed as well."""
    mpk = order.wishes.product.mpk
    if order.wishes.authority == FIRST and order.job_secret is None and mpk and is_burnt(state.connection, mpk):
        raise NeedsPerson(
            f"mp-use: a signature by MP key {mpk.hex()} was seen, so whoever saw it opens this bundle;"
            " only under a job secret (--job-secret-out), or under another SRK set"
        )


def _count_boards(order: Order, quota: int) -> int:
    listed = len(order.wishes.uids) if order.wishes.uids is not None else quota
    quantity = listed if order.quantity is None else order.quantity
    if quantity > quota:
        raise NeedsPerson(f"job {order.job} is for {quota} boards, and this bundle would be for {quantity}")
    return quantity


def _check_board(state: State, wishes: Wishes) -> None:
    """Where each board has a key of its own, a bundle under it is for one board."""
    if wishes.authority == FIRST:
        return
    authority = get_authority(state.connection, wishes.product.name, wishes.authority)
    if authority.per_device and (wishes.uids is None or len(wishes.uids) != 1):
        raise Usage(f"{wishes.authority} has a key for each device: --uids with the one board that this bundle is for")


def _make_makers(state: State, product: Product, random: Callable[[int], bytes]) -> Makers:
    def update_key(name: str, uid: bytes | None) -> Secret:
        return make_update_key(state.vault, get_authority(state.connection, product.name, name), uid)

    return Makers(random, update_key, lambda name: get_authority(state.connection, product.name, name).per_device)


def _make_making(state: State, order: Order, draft: Draft) -> Making:
    bundle, authority = draft.bundle, order.wishes.authority
    uid = None if bundle.conditions.uids is None else bundle.conditions.uids[0]
    expand = expand_under(state.vault, state.connection, bundle.product, authority, draft.vault_name, uid)
    if authority == FIRST:
        headers: dict[int, object] = {registry.HEADER_ISSUER_CHAIN: list(state.authority.chain("bundle"))}
        return Making(bundle, expand, order.job_secret, headers, lambda raw: state.authority.sign("bundle", raw))
    signer = get_authority(state.connection, bundle.product, authority)
    headers = {registry.HEADER_KID: thumbprint(signer.point)}
    return Making(bundle, expand, order.job_secret, headers, lambda raw: sign_as(state, signer, raw))


def _enter(state: State, order: Order, draft: Draft, made: Made) -> None:
    bundle = draft.bundle
    rights = order.wishes.rights
    row = BundleRow(
        digest=made.digest,
        product=bundle.product,
        job=bundle.job,
        authority=bundle.authority,
        version=bundle.version,
        minimum=bundle.minimum,
        made_at=bundle.made_at,
        expires=bundle.expires,
        quantity=draft.quantity,
        uids=bundle.conditions.uids,
        policy_digest=bundle.policy_digest,
        vault_name=draft.vault_name,
        slots=made.slots,
        rights=None if rights is None else BUNDLE_POLICY.encode(rights),
    )

    def change() -> None:
        _check_job(state, order)
        if read_history(state.connection, bundle.product, bundle.authority) != draft.history:
            raise NeedsPerson("another bundle of this product was made just now; look at it and make this one again")
        insert_bundle(state.connection, row)

    Office(state).enter("bundle", "create", bundle.job, digest_row(row), change)


def describe_pieces(pieces: Sequence[Piece]) -> list[dict[str, object]]:
    """For people and --json: names and sizes."""
    return [
        {
            "slot": one.component.name,
            "kind": one.component.kind,
            "destination": one.component.destination,
            "version": one.component.version,
            "action": one.component.action,
            "bytes": one.component.size,
            "uid": None if one.component.uid is None else one.component.uid.hex(),
        }
        for one in pieces
    ]
