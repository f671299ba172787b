"""anchors.toml for a product's provisioning image: which roots it trusts, what it asks for, which chips it may use."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mpissuer.policy import Product
from mpserver.certificates import EPOCH_FIRST
from mpserver.keystore import ROOT, STANDBY
from mpserver.roots import read_root_points
from mpserver.state import State
from mpserver.store.database import Connection


@dataclass(frozen=True, slots=True)
class BoardLists:
    """The [board] table. Of each sort one backend, or several with commas between, the preferred one first."""

    attest: str
    seal: str
    keys: str
    soc: str
    tpm_tcti: str | None = None
    sim_chip: str | None = None


@dataclass(frozen=True, slots=True)
class OfflineRules:
    """What an image of boards that are served by bundles says of them."""

    minimum: int | None = None
    """No bundle of a lower version, whatever the board was told before."""
    wipe: bool = False
    """Overwrite the bundle once it was taken."""


NO_RULES: Final = OfflineRules()


def write_anchors(
    state: State,
    product: Product,
    board: BoardLists,
    software: Mapping[str, str | None],
    offline: OfflineRules = NO_RULES,
) -> str:
    """The file's text. The build time is now: an image believes no earlier moment.

    Test keys are left out: the device takes a signature by one of `mp_key_ids` as proof that its part is closed, and
    open parts sign with the test key.
    """
    test_keys = find_test_keys(state.connection, product)
    certificates = [state.keystore.read_public(f"{one}.crt").decode("ascii") for one in (ROOT, STANDBY)]
    points = [one.hex() for one in read_root_points(state.keystore)]
    lines = [
        f"realm = {_quote(state.realm)}",
        f"product = {_quote(product.name)}",
        f"roots = {_list(points)}",
        f"tls_roots = {_list(certificates)}",
        f"build_time = {state.clock.now()}",
        f"allow_open = {'true' if product.life_cycle == 'any' else 'false'}",
        *_name_keys(product, test_keys, offline),
        f"epoch = {EPOCH_FIRST}",
        *_given(software),
        "",
        "[board]",
        *_name_backends(board),
        *_given({"tpm_tcti": board.tpm_tcti, "sim_chip": board.sim_chip}),
        *(["", "[offline]", "wipe = true"] if offline.wipe else []),
    ]
    for slot in product.slots:
        lines += ["", "[[slot]]", f"name = {_quote(slot.name)}", f"kind = {_quote(slot.kind)}"]
        lines += [f"destination = {_quote(slot.destination)}", *_length(slot.kind, slot.length)]
    return "\n".join(lines) + "\n"


def _name_keys(product: Product, test_keys: tuple[bytes, ...], offline: OfflineRules) -> Iterator[str]:
    """Which MP keys show that a part is closed; of a product whose key is a secret, that and nothing of the key."""
    if product.mp_use == "secret":
        yield 'mp_use = "secret"'
        if offline.minimum is not None:
            yield f"bundle_minimum = {offline.minimum}"
        return
    yield from (f"# left out, because open parts sign with it: test key {one.hex()}" for one in test_keys)
    yield f"mp_key_ids = {_list(one.hex() for one in product.mp_keys if one not in test_keys)}"


def find_test_keys(connection: Connection, product: Product) -> tuple[bytes, ...]:
    """Those of the product's MP keys that are registered as test keys, in its order."""
    known = {one for (one,) in connection.execute("SELECT key_id FROM attester_keys WHERE use = 'test'").fetchall()}
    return tuple(one for one in product.mp_keys if one in known)


def _name_backends(board: BoardLists) -> Iterable[str]:
    for sort in ("attest", "seal", "keys", "soc"):
        names = [one.strip() for one in getattr(board, sort).split(",")]
        yield f"{sort} = {_quote(names[0]) if len(names) == 1 else _list(names)}"


def _length(kind: str, length: int) -> list[str]:
    return [f"length = {length}"] if kind == "local" else []


def _given(values: Mapping[str, str | None]) -> list[str]:
    return [f"{name} = {_quote(value)}" for name, value in values.items() if value is not None]


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quote, values)) + "]"


def _quote(text: str) -> str:
    # A JSON string is a TOML basic string, as long as it escapes DEL too (TOML 1.0, section String).
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
