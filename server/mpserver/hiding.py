"""MP public keys that are secrets: into the vault and out of it, each act with its entry (docs/wire.md 11.2).

What stands in the ledger file is an id and facts about the part. The entry comes first: a key that a power cut kept out
of the vault is imported again, and one that is in the vault is never forgotten.
"""

from typing import NamedTuple

from mpissuer.booking import digest_of_object
from mpserver.errors import NeedsPerson
from mpserver.mpuse import PREFIX, check_hides, check_not_registered, digest_hidden, is_burnt, name_in_vault, name_key
from mpserver.office import Office
from mpserver.state import State
from mpserver.store.products import read_products
from mpwire.mpk import HiddenMpKey


class HiddenRow(NamedTuple):
    """What may be known of a key that is a secret."""

    mpk_id: bytes
    part: str
    origin: str
    """"silicon" or "simulated"."""
    state: str
    """kept; lost (the vault has it not: import it again); destroyed; unknown (no entry says how it came)."""
    added_at: int | None
    products: tuple[str, ...]
    filter: bytes | None = None


def hide(state: State, key: HiddenMpKey, part: str, origin: str, looks: bytes | None) -> bool:
    """True when it was new. `looks` is what finds it in an image. Raises NeedsPerson where it signs, or signed."""
    if origin == "simulated" and state.realm == "production":
        raise NeedsPerson("a simulated part's key cannot be a secret of realm production")
    mpk_id = name_key(key.reveal())
    check_hides(state, key, mpk_id)
    is_new = _enter(state, mpk_id, part, origin, looks)
    if name_in_vault(mpk_id) not in state.vault.names():
        state.vault.keep(name_in_vault(mpk_id), key.extract())
        return True
    return is_new


def _enter(state: State, mpk_id: bytes, part: str, origin: str, looks: bytes | None) -> bool:
    known = state.connection.execute(
        "SELECT part, origin, filter, destroyed_at IS NULL FROM hidden_mp_keys WHERE mpk_id = ?", (mpk_id,)
    ).fetchone()
    if known is not None and known[:2] != (part, origin) and known[3]:
        raise NeedsPerson(f"key {mpk_id.hex()} is kept already, as part {known[0] or '-'}, origin {known[1]}")
    if known == (part, origin, looks, 1):
        return False

    def change() -> None:
        check_not_registered(state.connection, mpk_id)
        if is_burnt(state.connection, mpk_id):
            raise NeedsPerson("mp-use: a signature by this key was seen just now; nothing was kept")
        state.connection.execute(
            "INSERT OR REPLACE INTO hidden_mp_keys (mpk_id, part, origin, filter, added_at) VALUES (?, ?, ?, ?, ?)",
            (mpk_id, part, origin, looks, state.clock.now()),
        )

    Office(state).enter("key", "hide", mpk_id.hex(), digest_hidden(mpk_id, part, origin, looks), change)
    return known is None or not known[3]


def destroy(state: State, mpk_id: bytes) -> HiddenRow:
    """Nothing opens under it here any more. Said again after a power cut it finishes. Raises NeedsPerson: unknown."""
    row = find_hidden(state, mpk_id)
    if row is None:
        raise NeedsPerson(f"no key {mpk_id.hex()} was ever kept here; `mpserver mp vault list` shows all")

    def change() -> None:
        state.connection.execute(
            "UPDATE hidden_mp_keys SET destroyed_at = ? WHERE mpk_id = ?", (state.clock.now(), mpk_id)
        )

    if row.state in ("kept", "lost"):
        digest = digest_of_object("mpk-destroyed", mpk_id)
        Office(state).enter("key", "destroy", mpk_id.hex(), digest, change)
    elif row.state == "unknown":
        Office(state).note("destroy mpk", mpk_id.hex(), b"")
    if name_in_vault(mpk_id) in state.vault.names():
        state.vault.destroy(name_in_vault(mpk_id))
    return row._replace(state="destroyed")


def burn(state: State, mpk_id: bytes, how: str) -> bool:
    """Remember that this key was seen to sign, so that it never becomes a secret. True when that was new."""
    if is_burnt(state.connection, mpk_id):
        return False

    def change() -> None:
        state.connection.execute(
            "INSERT INTO burnt_mp_keys (mpk_id, how, seen_at) VALUES (?, ?, ?)", (mpk_id, how, state.clock.now())
        )

    Office(state).enter("key", "burn", mpk_id.hex(), digest_of_object("burnt", mpk_id, how), change)
    return True


def find_hidden(state: State, mpk_id: bytes) -> HiddenRow | None:
    """One of them, destroyed ones too."""
    return next((one for one in list_hidden(state) if one.mpk_id == mpk_id), None)


def list_hidden(state: State) -> list[HiddenRow]:
    """In the order they came, then what lies in the vault without an entry."""
    kept = {one for one in state.vault.names() if one.startswith(PREFIX)}
    used: dict[bytes | None, list[str]] = {}
    for name, product in read_products(state.connection, state.authority).items():
        used.setdefault(product.mpk, []).append(name)
    rows = []
    for mpk_id, part, origin, looks, added_at, is_destroyed in state.connection.execute(
        "SELECT mpk_id, part, origin, filter, added_at, destroyed_at IS NOT NULL FROM hidden_mp_keys"
        " ORDER BY added_at, mpk_id"
    ).fetchall():
        name = name_in_vault(mpk_id)
        stands = "destroyed" if is_destroyed else "kept" if name in kept else "lost"
        rows.append(HiddenRow(mpk_id, part, origin, stands, added_at, tuple(used.get(mpk_id, ())), looks))
        kept.discard(name)
    strange = [bytes.fromhex(one.removeprefix(PREFIX)) for one in sorted(kept)]
    return [*rows, *(HiddenRow(one, "", "", "unknown", None, tuple(used.get(one, ()))) for one in strange)]
