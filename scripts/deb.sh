#!/bin/sh
# Builds the Debian 13 packages of the committed tree: scripts/deb.sh mpagent|all FOLDER [PYTEST ARGUMENT...]. `mpagent`
# is the device's package alone, which fits every architecture. With more arguments pytest runs over tests of the
# packages. Needs root: it builds and installs in a Debian 13 of its own, in namespaces whose files are root's.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

wanted=${1:-}
case $wanted in mpagent | all) ;; *) fail "name mpagent or all, then a folder" ;; esac
folder=${2:?name the folder for the packages}
shift 2
[ "$(id -u)" = 0 ] || fail "run as root"

mkdir -p out
exec 9>out/setup.lock
flock 9
install_packages mmdebstrap debian-archive-keyring git iproute2 util-linux
exec 9>&-

.venv/bin/python -m tests.deb "$wanted" "$folder"
[ $# -gt 0 ] || exit 0
# A clean Debian is made within the first test that needs one.
exec .venv/bin/python -m pytest --timeout 900 "$@"
