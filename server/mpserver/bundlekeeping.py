"""Under which key of the vault a bundle was made (docs/wire.md 11.2)."""

from functools import partial

from mpserver.receiving import ExpandOf
from mpserver.state import State


def expand_of(state: State) -> ExpandOf:
    """Raises NotKept, where the vault has the key no more, and NotNow."""
    vault = state.vault
    return lambda bundle: partial(vault.expand, bundle.vault_name)
