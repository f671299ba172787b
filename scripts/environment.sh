# Sourced by the other scripts here, from the root of the checkout: virtual environments keyed by what made them.

fail() {
    echo "$0: $*" >&2
    exit 1
}

# fingerprint FILE...: changes when a file does, or when the checkout moves (an environment holds absolute paths).
fingerprint() {
    { pwd; cat "$@"; } | sha256sum | cut -d ' ' -f 1
}

# is_current DIR KEY: DIR was finished, and under this key.
is_current() {
    [ -f "$1/stamp" ] && [ "$(cat "$1/stamp")" = "$2" ]
}

missing_packages() {
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

# install_packages PACKAGE...: those that are missing, by apt as root or by sudo. Under the lock out/setup.lock.
install_packages() {
    command -v dpkg-query >/dev/null || fail "this is not Debian; install by hand what matches: $*"
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then root=""; else root=sudo; fi
    [ -z "$root" ] || command -v sudo >/dev/null || fail "run as root or install sudo; missing packages: $missing"
    echo "system packages: $missing"
    $root apt-get -qq -o DPkg::Lock::Timeout=600 update </dev/null
    # shellcheck disable=SC2086  # a list of words
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install --yes \
        --no-install-recommends $missing </dev/null >out/apt.log 2>&1 || { cat out/apt.log >&2; fail "apt-get failed"; }
}

# find_python VERSION...: prints the first interpreter that is there, can make environments and can build C parts.
# An interpreter kept by pyenv is found even when it is not the one pyenv has switched to.
find_python() {
    for version in "$@"; do
        for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3; do
            "$candidate" -c '
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info >= (3, 11) and os.path.exists(sysconfig.get_path("include") + "/Python.h")
print(sys.executable)' 2>/dev/null && return 0
        done
    done
    return 1
}

# install_pins DIR PYTHON PINS: makes the environment, or brings it up to date. Every package, the ones that build
# others included, has the version its file names.
install_pins() {
    echo "environment $1 from $3"
    # One that was moved, or whose interpreter is gone, is made anew.
    { grep -qF "$PWD/$1/" "$1/bin/pip" && "$1/bin/python" -c ''; } 2>/dev/null || "$2" -m venv --clear "$1"
    rm -f "$1/stamp"
    PIP_CONSTRAINT="$PWD/constraints/build.txt" PIP_BUILD_CONSTRAINT="$PWD/constraints/build.txt" \
        PIP_DISABLE_PIP_VERSION_CHECK=1 "$1/bin/pip" install --quiet --requirement "$3"
}

# install_rooms DIR FOLDER...: this checkout itself, editable, without asking a registry for anything.
install_rooms() {
    environment=$1
    shift
    for room in "$@"; do
        PIP_DISABLE_PIP_VERSION_CHECK=1 "$environment/bin/pip" install --quiet --no-build-isolation --no-deps \
            --editable "$room"
    done
    "$environment/bin/pip" check >/dev/null || "$environment/bin/pip" check || fail "pins do not fit each other"
}
