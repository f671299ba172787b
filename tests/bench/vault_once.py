"""One cold use of the vault, as a device's command composes it: `python vault_once.py seal|unseal ROOT BYTES`.

`seal` writes a generation with one secret of that size, durable and read back through the chip; `unseal` reads it.
"""

import os
import sys
from pathlib import Path

from mpagent.compose import read_device
from mpagent.slots import VaultSlot
from mpwire.guard import guard
from mpwire.secret import Secret

UEID = b"\x01" + bytes(32)


def main() -> None:
    """Raises what the vault raises; nothing is printed."""
    verb, root, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    guard()
    device = read_device(root)
    with device.hold("bench"), device.open_board() as board:
        vault = device.vault(board)
        if verb == "seal":
            secret = VaultSlot("secret", "static", "sealed", 1, Secret(os.urandom(size)))
            vault.discard_others(vault.write(UEID, [secret], above=vault.find_latest()))
        else:
            (found,) = vault.read(UEID, vault.find_latest())
            assert len(found.value) == size


if __name__ == "__main__":
    main()
