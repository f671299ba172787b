# Everything generated goes to out/ and .venv.
.DEFAULT_GOAL := help
.PHONY: help setup lint test bench coverage fuzz floor demo demo-offline qemu-image qemu-keys qemu qemu-cuts deb clean

PYTHON := .venv/bin/python
export PYTHONPYCACHEPREFIX := $(CURDIR)/out/pycache

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup:  ## system packages, .venv and the three wheels; at once when nothing changed
	@scripts/setup.sh

lint: setup  ## ruff and mypy --strict
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

test: lint  ## lint, then every test but bench and fuzz
	@$(PYTHON) -m pytest -n 2

bench: setup  ## speed and size of server, device and sealing; JSON in out/bench/
	@scripts/floor.sh --prepare
	@$(PYTHON) tests/bench --out out/bench

coverage: setup  ## branch coverage of the hardware backends; every branch that no test reaches says why
	@scripts/coverage.sh

FUZZ_SECONDS ?= 10
fuzz: setup  ## one atheris target per decoder, FUZZ_SECONDS each
	@scripts/fuzz.sh $(FUZZ_SECONDS)

floor: setup  ## device-side tests on the oldest releases a device may carry
	@scripts/floor.sh

demo: setup  ## four boards, one server, seven attacks; report in out/demo/report.json
	@$(PYTHON) -m mpsim.demo --out out/demo

demo-offline: setup  ## the same without a network: three boards, one bundle, scans, receipts; out/demo-offline/report.json
	@$(PYTHON) -m mpsim.demo.offline --out out/demo-offline

qemu-image: setup  ## kernel and root for the QEMU bench, in the user's cache; 20 minutes once, then at once
	@scripts/qemu.sh

qemu-keys: setup  ## the kernel-key sealer on a real kernel in QEMU, with reboots and power cuts
	@scripts/qemu.sh tests/qemu/bench/test_kernel_key.py

qemu: setup  ## a board in QEMU with our package, to its production image; accidents, power cuts, and all of qemu-keys
	@scripts/qemu.sh tests/qemu/bench/test_*.py

N ?= 200
qemu-cuts: setup  ## N power cuts of a board before PASS, and the controls; report in out/qemu/cuts.json
	@scripts/qemu.sh tests/qemu/bench/test_power_cuts.py --cuts $(N)

deb: setup  ## the Debian 13 packages in out/deb, installed, used, upgraded and purged in a Debian 13 of their own
	@scripts/deb.sh all out/deb tests/deb/bench

clean:  ## remove all that was generated
	@rm -rf out .venv
	@find agent server sim tests -name __pycache__ -type d -prune -exec rm -rf {} +
