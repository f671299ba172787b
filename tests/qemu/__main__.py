"""Builds what the bench boots, or finds it built: `python -m tests.qemu`."""

from tests.qemu.kernel import find_kernel
from tests.qemu.root import find_root

print(f"kernel {find_kernel()}\nroot   {find_root()}")
