"""mpserver tpm: which measured software may open what boards with a TPM sealed (docs/wire.md 5.4)."""

import argparse
from pathlib import Path
from typing import Final

from mpserver.errors import NeedsPerson, SetUp, Usage
from mpserver.office import Office
from mpserver.output import Shown, write_new
from mpserver.state import State, open_state
from mpserver.store.products import read_products
from mpwire.cose import thumbprint
from mpwire.errors import Malformed
from mpwire.messages.issuer import PCR_INDEX_MAX
from mpwire.p256 import SoftKey
from mpwire.pcr_policy import write_approval

PCR_AUTHORITY: Final = "pcr-authority"
"""The keystore's key that signs approvals and nothing else: what it signs is for a TPM to read, not a COSE object."""
_PCR_BYTES: Final = 32


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init-pcr-authority", help="make the key that approves PCR values; again, show it")
    init.set_defaults(run=init_authority)
    approve = verbs.add_parser("authorize-pcrs", help="let boards of a product unseal while their PCRs are so")
    approve.add_argument("--product", required=True)
    approve.add_argument(
        "--pcr",
        required=True,
        action="append",
        type=_pcr,
        metavar="N=HEX",
        help="index and value of the SHA-256 bank; once for each PCR that the image names",
    )
    approve.add_argument("--out", required=True, type=Path, metavar="FILE", help="for pcrs/ beside the image's anchors")
    approve.set_defaults(run=authorize_pcrs)


def init_authority(options: argparse.Namespace) -> Shown:
    """Its point, for the anchors of images. A board is bound to this key for as long as its secrets lie sealed."""
    state = open_state(options.dir)
    try:
        is_new = not state.safe.has_key(PCR_AUTHORITY)
        if is_new:
            state.safe.make_key(PCR_AUTHORITY)
        point = SoftKey(state.safe.load_key(PCR_AUTHORITY)).public_key()
        if is_new:
            Office(state).note("make pcr-authority", PCR_AUTHORITY, thumbprint(point))
    finally:
        state.close()
    made = "made: back it up, for without it no new image opens what boards have" if is_new else "was there already"
    value = {"pcr_authority": point.hex(), "new": is_new}
    return Shown(value, f'PCR authority {made}\nfor anchors.toml:\n[pcrs]\nauthority = "{point.hex()}"')


def authorize_pcrs(options: argparse.Namespace) -> Shown:
    """The approval's file, in the ledger before it is on disk: it cannot be called back."""
    pcrs = _collect(options.pcr)
    if options.out.exists():  # before the ledger keeps an approval that nobody got
        raise Usage(f"{options.out} exists already")
    state = open_state(options.dir)
    try:
        if options.product not in read_products(state.connection, state.authority):
            raise NeedsPerson(f"there is no product {options.product}; `mpserver product show` lists all")
        raw = _approve(state, options.product, pcrs)
        write_new(options.out, raw)
    finally:
        state.close()
    value = {
        "product": options.product,
        "realm": state.realm,
        "pcrs": {str(index): measured.hex() for index, measured in pcrs},
        "file": str(options.out),
    }
    indices = ", ".join(str(index) for index, _ in pcrs)
    return Shown(value, f"{options.out}: boards of {options.product} unseal while PCRs {indices} are as given")


def _approve(state: State, product: str, pcrs: tuple[tuple[int, bytes], ...]) -> bytes:
    try:
        key = SoftKey(state.safe.load_key(PCR_AUTHORITY))
    except SetUp as error:
        raise SetUp("there is no PCR authority: run `mpserver tpm init-pcr-authority` first") from error
    try:
        raw = write_approval(state.realm, product, pcrs, key.sign)
    except Malformed as error:
        raise Usage(f"--pcr: {error}") from error
    Office(state).note("authorize pcrs", product, raw)
    return raw


def _collect(given: list[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    indices = [index for index, _ in given]
    if len(set(indices)) != len(indices):
        raise Usage("--pcr: a PCR is given twice")
    return tuple(sorted(given))


def _pcr(text: str) -> tuple[int, bytes]:
    """As tpm2_pcrread prints it, 0x before the value or not."""
    index, equals, value = text.partition("=")
    try:
        measured = bytes.fromhex(value.removeprefix("0x"))
    except ValueError:
        measured = b""
    whole = index.isascii() and index.isdecimal() and len(index) <= 2 and int(index) <= PCR_INDEX_MAX
    if not equals or not whole or len(measured) != _PCR_BYTES:
        raise Usage(f"--pcr {text[:80]}: an index of 0 to {PCR_INDEX_MAX}, =, and {2 * _PCR_BYTES} hex digits")
    return int(index), measured
