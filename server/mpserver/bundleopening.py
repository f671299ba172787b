"""Reading a bundle back at the OEM: signed by us, whole, in the ledger, and every component opens. Nothing is kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from mpserver.bundlemaking import open_plain
from mpserver.certificates import EPOCH_FIRST
from mpserver.errors import NeedsPerson
from mpserver.roots import read_root_points
from mpserver.state import State
from mpserver.store.bundles import BundleRow, find_bundle
from mpserver.store.products import read_products
from mpserver.updatekeys import FIRST, expand_under, find_vault_name, get_authority
from mpwire import bundle as wire
from mpwire import bundlekeys
from mpwire.bundle import POLICY, Frame
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_POLICY, UPDATE_KEY, Bundle, Component
from mpwire.messages.grant import RunningCheck
from mpwire.secret import Secret
from mpwire.shape import MapOf
from mpwire.stream import open_chunks
from mpwire.trust import Trust

Hear = Callable[[int, int], None]
WORDS: Final[Mapping[str, str]] = {
    "bundle-frame": "this is no bundle, or its beginning is damaged",
    "bundle-payload": "bytes are missing, changed or too many: copy it again from where it was made",
    "bundle-signature": "changed after it was signed, or signed by somebody else in our name",
    "bundle-authority-key": "signed by another key than that of its update authority",
    "bundle-signer": "not signed the way that its authority signs",
    "bundle-time": "it was not made while its signing key was good",
    "issuer-root": "made by another server: its chain leads to no root of this one",
    "bundle-secret": "it needs the job secret of its job, which this is not: --job-secret-file FILE",
    "bundle-key": "it was made under another key than the vault keeps, or its manifest was changed and signed anew",
    "bundle-open": "a component does not open: it is not the one that was made",
    "check-value": "a component opens to another value than the ledger knows",
}
"""By check name; the others speak for themselves."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What does not hold, with the file's name and in words."""
    try:
        yield
    except (Malformed, Unauthentic) as error:
        check = str(error).partition(":")[0]
        words = f": {WORDS[check]}" if check in WORDS else ""
        raise type(error)(f"{path}: {error}{words}") from error


class Opened(NamedTuple):
    """A component that opened."""

    component: Component
    is_checked: bool
    """Its check value is the one in the ledger."""


def open_bundle(path: Path) -> BinaryIO:
    """Raises Usage."""
    return open_plain(path)


def verify_bundle(state: State, file: BinaryIO, progress: Hear) -> tuple[Frame, BundleRow | None]:
    """Signed by us or by an authority of ours, every byte as signed; and its row, where the ledger has one.

    Raises Malformed, Unauthentic, NeedsPerson: of another realm, or no such authority.
    """
    frame = wire.read_bundle(file)
    told = frame.bundle
    if told.realm != state.realm:
        raise NeedsPerson(f"bundle-realm: the bundle is of realm {told.realm}, this server is {state.realm}")
    if told.authority == FIRST:
        # Held against the time it was made: its certificate may have ended since, as that of an old head.
        trust = Trust(state.realm, tuple(read_root_points(state.keystore)), EPOCH_FIRST, told.made_at)
        wire.verify_issuer(frame, trust)
    else:
        wire.verify_authority(frame, get_authority(state.connection, told.product, told.authority).point)
    wire.check_payload(file, frame, progress)
    return frame, find_bundle(state.connection, frame.digest)


def open_all(
    state: State, file: BinaryIO, frame: Frame, row: BundleRow | None, job_secret: Secret | None, progress: Hear
) -> Iterator[Opened]:
    """Each component in turn, opened and dropped. Raises Unauthentic: bundle-secret, bundle-key, bundle-open."""
    told = frame.bundle
    kek = bundlekeys.make_kek(told, _find_expand(state, told, row), job_secret)
    bundlekeys.check_key(told, kek)
    known = {} if row is None else {(one.name, one.uid): one.check for one in row.slots}
    check_key = bundlekeys.make_check_key(kek)
    for number, (component, place) in enumerate(zip(told.components, frame.places, strict=True)):
        file.seek(place.offset)
        check = RunningCheck(check_key, component.name, component.version, component.size)
        value, done = bytearray(), place.offset
        for chunk in open_chunks(bundlekeys.make_content_key(kek, number, component.uid), file.read, component.size):
            check.update(chunk)
            done += len(chunk)
            progress(done, frame.end)
            if component.kind in ("update-key", POLICY):
                value += chunk
        _check_value(component, bytes(value))
        right = known.get((component.name, component.uid))
        if right is not None and right != check.finish():
            raise Unauthentic("check-value")
        yield Opened(component, right is not None)


def _find_expand(state: State, told: Bundle, row: BundleRow | None) -> bundlekeys.Expand:
    if row is not None:
        vault_name = row.vault_name
    else:
        product = read_products(state.connection, state.authority).get(told.product)
        if product is None:
            raise NeedsPerson(f"there is no product {told.product} here")
        vault_name = find_vault_name(state.connection, product, told.authority)
    uid = None if told.conditions.uids is None else told.conditions.uids[0]
    return expand_under(state.vault, state.connection, told.product, told.authority, vault_name, uid)


def _check_value(component: Component, value: bytes) -> None:
    """As a board's 11.4.12. Raises Malformed("bundle-value: ...")."""
    shapes: dict[str, MapOf[Any]] = {"update-key": UPDATE_KEY, POLICY: BUNDLE_POLICY}
    shape = shapes.get(component.kind)
    if shape is not None:
        try:
            shape.decode(value, SLOT_VALUE_MAX_BYTES)
        except Malformed as error:
            raise Malformed(f"bundle-value: {component.name}: {error}") from None
