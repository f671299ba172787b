"""mpserver authority: who may make bundles after the first loading, and with which keys (docs/wire.md 11.5)."""

import argparse
from typing import Any

from mpserver.errors import NeedsPerson
from mpserver.output import Shown
from mpserver.state import Places, open_ledger, open_state
from mpserver.store.products import read_products
from mpserver.updatekeys import SLOT_PREFIX, UpdateAuthority, get_authority, list_authorities, make_authority
from mpwire.cose import thumbprint
from mpwire.messages.bundle import UPDATE_AUTHORITIES
from mpwire.p256 import write_spki


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="make the keys of an authority; again, show it")
    _add_name(create)
    create.add_argument("--per-device", action="store_true", help="an update key of its own for each fuse UID")
    create.set_defaults(run=create_authority)
    export = verbs.add_parser("export-public", help="print the public half of its signing key, PEM")
    _add_name(export)
    export.set_defaults(run=export_public)
    verbs.add_parser("list", help="every authority of every product").set_defaults(run=show_all)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=UPDATE_AUTHORITIES)
    parser.add_argument("--product", required=True)


def create_authority(options: argparse.Namespace) -> Shown:
    """Boards hold what is made here from their first loading on: it is for as long as they live."""
    state = open_state(options.dir)
    try:
        product = read_products(state.connection, state.authority).get(options.product)
        if product is None:
            raise NeedsPerson(f"there is no product {options.product}; `mpserver product show` lists all")
        made, is_new = make_authority(state, product, options.name, per_device=options.per_device)
    finally:
        state.close()
    slot = f"{SLOT_PREFIX}{made.name}"
    has_slot = any(one.name == slot for one in product.slots)
    text = f"authority {made.name} of {made.product} " + (
        "made: back up the keystore, for without it boards take no bundle of this authority" if is_new else "was there"
    )
    if not has_slot:
        text += f'\nboards get its key by a slot of the product: name = "{slot}", kind = "update-key"'
    return Shown({**_describe(made), "new": is_new, "in_product": has_slot}, text)


def export_public(options: argparse.Namespace) -> Shown:
    """For whoever verifies bundles of this authority elsewhere."""
    import base64

    connection = open_ledger(Places(options.dir))
    try:
        found = get_authority(connection, options.product, options.name)
    finally:
        connection.close()
    digits = base64.encodebytes(write_spki(found.point)).decode().replace("\n", "")
    lines = [digits[at : at + 64] for at in range(0, len(digits), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])
    return Shown({**_describe(found), "pem": pem}, pem)


def show_all(options: argparse.Namespace) -> Shown:
    """By product."""
    connection = open_ledger(Places(options.dir))
    try:
        value = [_describe(one) for one in list_authorities(connection)]
    finally:
        connection.close()
    return Shown(value, "" if value else "no update authorities: mpserver authority create NAME --product P")


def _describe(one: UpdateAuthority) -> dict[str, Any]:
    return {
        "product": one.product,
        "authority": one.name,
        "keys": "each device" if one.per_device else "product",
        "thumbprint": thumbprint(one.point).hex(),
        "point": one.point.hex(),
        "made_at": one.made_at,
    }
