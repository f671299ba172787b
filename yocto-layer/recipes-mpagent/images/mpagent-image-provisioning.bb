SUMMARY = "What a factory flashes: enrolls the board, finishes it, and is gone"
DESCRIPTION = "Built in the configuration mpagent-provisioning alone, where OP-TEE lets Linux use the manufacturing \
               protection key. A board never leaves the factory with it."

require mpagent-image.inc

REQUIRED_DISTRO_FEATURES += "mpagent-provisioning"

IMAGE_INSTALL:append = " packagegroup-mpagent-provisioning"
