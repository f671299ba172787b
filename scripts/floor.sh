#!/bin/sh
# Runs the device-side tests on the oldest releases a device may carry (docs/operate.md, "Floor"), once for each
# Python named there. Arguments go to pytest; --prepare makes the environments and stops, for `make bench`.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

mkdir -p out/env
exec 9>out/setup.lock
flock 9
for version in 3.11 3.12; do
    python=$(find_python "$version") || fail "python$version with venv and headers is not there; install it, then run again"
    environment=out/env/floor-$version
    key=$(fingerprint scripts/floor.sh scripts/environment.sh constraints/floor.txt constraints/build.txt pyproject.toml \
        sim/pyproject.toml)
    if ! is_current "$environment" "$key"; then
        install_pins "$environment" "$python" constraints/floor.txt
        install_rooms "$environment" . sim
        echo "$key" >"$environment/stamp"
    fi
done
flock -u 9
[ "${1:-}" != --prepare ] || exit 0

# The issuer that answers the device in some of these tests is read from the checkout: its wheel asks for more than a
# device carries (granian), and no device has it. As a process it runs in .venv. What an authority and a vault promise is the issuer's alone: over a
# token it asks for a newer python-pkcs11 than a device's tests need.
for version in 3.11 3.12; do
    echo "floor on Python $version"
    MPSERVER_PYTHON=$PWD/.venv/bin/python PYTHONPATH=server out/env/floor-$version/bin/python \
        -m pytest -n 2 -m "not ceiling" \
        --ignore tests/contract/test_authority.py --ignore tests/contract/test_vault.py \
        tests/mpwire tests/mpagent tests/offline tests/contract "$@"
done
