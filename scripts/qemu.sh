#!/bin/sh
# Has the kernel and the root of the QEMU bench ready in the user's cache, and with arguments runs pytest over tests of
# the bench: scripts/qemu.sh [PYTEST ARGUMENT...]. Needs root or sudo to install packages and to build the root.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

PACKAGES="qemu-system-arm swtpm
    gcc libc6-dev make flex bison bc libssl-dev gcc-aarch64-linux-gnu xz-utils
    mmdebstrap qemu-user-static arch-test e2fsprogs debian-archive-keyring
    qemu-utils nbdkit socat git iproute2 util-linux"

mkdir -p out
exec 9>out/setup.lock
flock 9
# shellcheck disable=SC2086  # a list of words
install_packages $PACKAGES
exec 9>&-

.venv/bin/python -m tests.qemu
[ $# -gt 0 ] || exit 0
exec .venv/bin/python -m pytest --timeout 1200 "$@"
