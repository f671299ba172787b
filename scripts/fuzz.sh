#!/bin/sh
# One atheris target per decoder, each for SECONDS: scripts/fuzz.sh SECONDS. Findings land in out/fuzz.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

mkdir -p out/env out/fuzz
key=$(fingerprint scripts/fuzz.sh scripts/environment.sh constraints/fuzz.txt constraints/build.txt pyproject.toml)
if ! is_current out/env/fuzz "$key"; then
    python=$(find_python 3.11) || fail "the fuzzer's wheel is for Python 3.11, which is not there"
    install_pins out/env/fuzz "$python" constraints/fuzz.txt
    install_rooms out/env/fuzz .
    echo "$key" >out/env/fuzz/stamp
fi
seconds=${1:?how many seconds for each target}
for target in tests/fuzz/target_*.py; do
    [ -e "$target" ] || fail "no targets in tests/fuzz"
    name=$(basename "$target" .py)
    mkdir -p "out/fuzz/$name"
    echo "$name for $seconds s"
    PYTHONPATH=.:agent:server out/env/fuzz/bin/python "$target" -max_total_time="$seconds" -max_len=140000 -timeout=5 \
        -artifact_prefix="out/fuzz/$name-" "out/fuzz/$name" >"out/fuzz/$name.log" 2>&1 \
        || { tail -n 40 "out/fuzz/$name.log" >&2; fail "$name found something"; }
    tail -n 1 "out/fuzz/$name.log"
done
