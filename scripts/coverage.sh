#!/bin/sh
# Branch coverage of the hardware backends (agent/mpagent/hal) by the tests that touch them. Ends with 1 where a branch
# is reached by no test and says no reason ("# not here: ..." on its line). The report stays in out/coverage/.
set -eu
cd "$(dirname "$0")/.."

rm -rf out/coverage
mkdir -p out/coverage
# The measurement itself imports what the tests left out here count.
.venv/bin/python -m coverage run -m pytest -n 2 -q tests/contract tests/mpagent tests/story tests/power/test_tpm_cuts.py \
    --deselect tests/mpagent/test_cli.py::test_nothing_heavy_is_imported_at_start
.venv/bin/python -m coverage combine -q
.venv/bin/python -m coverage html -q -d out/coverage/html
.venv/bin/python -m coverage report --fail-under=100 | tee out/coverage/report.txt
