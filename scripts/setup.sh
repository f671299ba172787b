#!/bin/sh
# Makes .venv and what it stands on; `make demo` and `make test` both begin here. Where all is done it only compares
# one fingerprint. Needs root or sudo only while a system package is missing.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

# The compiler builds tpm2-pytss, which comes as source alone; swtpm and the TSS are the real TPM of demo and tests;
# strace cuts the power, faketime bends the clock; clevis and systemd stand beside us in `make bench`; softhsm2 is the
# token, libnss3 another one, which has HKDF; pcscd with vsmartcard's reader is the slot of the virtual card, which
# OpenSC's tools read as well. cryptsetup is what a board encrypts its disk with, and keyutils looks for its kernel keys
# from outside; RAUC and SWUpdate are given bundles that they install. The line before theirs makes the images that `mpserver scan-image` is tried against, and
# ripgrep searches beside it in `make bench`.
PACKAGES="gcc libc6-dev pkg-config libtss2-dev libtss2-tcti-swtpm0 swtpm swtpm-tools tpm2-tools
    strace faketime git clevis clevis-tpm2 systemd
    softhsm2 libnss3 pcscd vsmartcard-vpcd opensc libpcsclite-dev iproute2 util-linux cryptsetup-bin keyutils
    e2fsprogs dosfstools mtools u-boot-tools device-tree-compiler cpio fdisk lz4 ripgrep
    rauc rauc-service squashfs-tools swupdate"

key=$(fingerprint scripts/setup.sh scripts/environment.sh constraints/*.txt pyproject.toml server/pyproject.toml \
    sim/pyproject.toml)
zcbor_key=$(fingerprint scripts/environment.sh constraints/zcbor.txt constraints/build.txt)
oelint_key=$(fingerprint scripts/environment.sh constraints/oelint.txt constraints/build.txt)
is_current .venv "$key" && is_current out/env/zcbor "$zcbor_key" && is_current out/env/oelint "$oelint_key" && exit 0

mkdir -p out/env
exec 9>out/setup.lock
flock 9
versions="3.11 3 3.12 3.13"
# shellcheck disable=SC2086  # lists of words, here and below
if find_python $versions >/dev/null; then
    install_packages $PACKAGES
else
    install_packages $PACKAGES python3 python3-venv python3-dev
fi
python=$(find_python $versions) || fail "no Python >= 3.11 with venv and headers"

if ! is_current .venv "$key"; then
    install_pins .venv "$python" constraints/current.txt
    install_rooms .venv . server sim
    echo "$key" >.venv/stamp
fi
if ! is_current out/env/zcbor "$zcbor_key"; then
    install_pins out/env/zcbor "$python" constraints/zcbor.txt
    echo "$zcbor_key" >out/env/zcbor/stamp
fi
# The recipes' linter and KAS, which read yocto-layer/ in the tests.
if ! is_current out/env/oelint "$oelint_key"; then
    install_pins out/env/oelint "$python" constraints/oelint.txt
    echo "$oelint_key" >out/env/oelint/stamp
fi
