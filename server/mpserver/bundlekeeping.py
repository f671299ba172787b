"""Under which key of the vault a bundle was made (docs/wire.md 11.2)."""

from mpserver.receiving import ExpandOf
from mpserver.state import State
from mpserver.store.bundles import BundleRow
from mpserver.updatekeys import expand_under
from mpwire.bundlekeys import Expand


def expand_of(state: State) -> ExpandOf:
    """Raises NotKept, where the vault has the key no more, NotNow, and NeedsPerson for an authority that is gone."""

    def find(bundle: BundleRow) -> Expand:
        uid = bundle.uids[0] if bundle.uids else None
        return expand_under(state.vault, state.connection, bundle.product, bundle.authority, bundle.vault_name, uid)

    return find
