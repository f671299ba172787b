"""Tests of the agent as it is installed on a board; they need nothing but it, and change nothing.

One line for each test, as ptest-runner reads them: "PASS: name" or "FAIL: name"; exit code 1 if one failed.
"""

import importlib
import json
import pkgutil
import subprocess
import sys
import traceback

HARDWARE = {"pkcs11", "smartcard", "tpm2_pytss"}
"""Libraries of the extras: a board without the part has no package for it."""
DOCUMENTED = {0, 64, 65, 69, 70, 73, 74, 75, 76, 77, 78}
"""docs/operate.md, "Exit codes"."""


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mpagent", *words], capture_output=True, text=True, timeout=120)


def test_every_module_imports() -> None:
    for room in ("mpwire", "mpagent"):
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if module.name.endswith(".__main__"):
                continue
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                assert (error.name or "").split(".")[0] in HARDWARE, f"{module.name}: {error}"


def test_no_room_of_the_server_or_the_simulator_is_here() -> None:
    for room in ("mpissuer", "mpserver", "mpsim"):
        assert importlib.util.find_spec(room) is None, f"{room} is on this board"


def test_a_message_is_spelled_and_read() -> None:
    codec = importlib.import_module("mpwire.codec")
    value = {1: b"nonce", 2: ["slot", 7, True]}
    assert codec.decode(codec.encode(value)) == value
    assert codec.encode({2: 0, 1: 0}) == bytes.fromhex("a201000200")


def test_a_wrong_command_line_ends_with_64() -> None:
    assert run("no-such-command").returncode == 64


def test_doctor_answers_in_json_with_a_documented_code() -> None:
    done = run("doctor", "--json")
    assert done.returncode in DOCUMENTED, done.returncode
    findings = json.loads(done.stdout)
    assert findings and all(finding["state"] in ("ok", "note", "missing", "broken") for finding in findings)


def main() -> int:
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
        except Exception:
            traceback.print_exc()
            failed += 1
            print(f"FAIL: {name}", flush=True)
        else:
            print(f"PASS: {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
