"""A board's OP-TEE at the lowest interface a program sees: the ioctls of /dev/tee0.

shim.c stands in the program (LD_PRELOAD) for the kernel's entry points; serve.py holds what the kernel keeps
(kernel.py) and the secure world behind it (world.py and the applications), over the chip of one simulated board.
"""
