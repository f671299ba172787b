"""Part 9 of the bench: `mpserver bundle` with a component of 200 MiB, beside what only encrypts.

Targets: 100 MiB/s of one core from the start of a command to its end, and at most 32 MiB more memory than a command
that does nothing takes. Ours seals, hashes twice (digest and check value), syncs, signs and enters; openssl and a plain
loop over AES-GCM in 64 KiB pieces only encrypt, into a file without sync. CPU seconds count. Each round takes every
contestant once.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from boards import clean_environment, meter
from figures import Figure, median, table, write_report

from mpserver.mpuse import name_key
from mpsim.board import mp_key_record
from mpsim.fuses import srk_hash_of

TARGET_MIB_S: Final = 100.0
TARGET_MEMORY_MIB: Final = 32.0
SIZE_MIB: Final = 200
ROUNDS: Final = 3
MIB: Final = 1024 * 1024
MPSERVER: Final = (sys.executable, "-m", "mpserver")
OURS: Final = ("bundle create", "bundle extract-test")
PRODUCT: Final = """
name = "bench"
attesters = ["mp"]
grades = ["L"]
mp_use = "secret"
mpk = "{name}"

[[slot]]
name = "firmware"
kind = "file"
"""
LOOP: Final = """
import os, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
cipher, number = AESGCM(os.urandom(32)), 0
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as out:
    while chunk := source.read(65536):
        out.write(cipher.encrypt(number.to_bytes(12, "big"), chunk, None))
        number += 1
"""


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes bundle.json."""
    state, source, made = scratch / "oem", scratch / "firmware", scratch / "made"
    make_state(scratch, state)
    with source.open("wb") as file:
        for _ in range(SIZE_MIB):
            file.write(os.urandom(MIB))
    contestants = make_contestants(state, source, made)
    idle = meter(*MPSERVER, "--dir", str(state), "bundle", "list")["peak_mib"]
    missing = [name for name, command in contestants.items() if shutil.which(command[0]) is None]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants if name not in missing}
    for _ in range(1 + ROUNDS):  # the first warms the page cache and is dropped
        for name, spent in found.items():
            spent.append(meter(*contestants[name]))
    return report(out, {name: spent[1:] for name, spent in found.items()}, idle, missing)


def make_state(scratch: Path, state: Path) -> None:
    """A server with a key in its vault, a product and an open job."""
    record = mp_key_record("imx8mm", srk_hash_of("lab"))
    name = name_key(bytes.fromhex(record["public_key"])).hex()
    (scratch / "key.json").write_text(json.dumps(record))
    (scratch / "product.toml").write_text(PRODUCT.format(name=name))
    for words in (
        ("init", "--realm", "lab"),
        ("mp", "vault", "import", str(scratch / "key.json"), "--confirm", name),
        ("product", "add", str(scratch / "product.toml")),
        ("job", "create", "lot", "--product", "bench", "--quota", "1000"),
        ("job", "approve", "lot"),
    ):
        command = [*MPSERVER, "--dir", str(state), *words]
        subprocess.run(command, check=True, capture_output=True, env=clean_environment())


def make_contestants(state: Path, source: Path, made: Path) -> dict[str, list[str]]:
    """Commands by name, in the order in which they run: what is made is then opened."""
    ours = [*MPSERVER, "--dir", str(state), "bundle"]
    told = ["--product", "bench", "--job", "lot", "--version", "1", "--expires", "30", "--force"]
    key = ["-K", "00" * 32, "-iv", "00" * 16]
    return {
        "bundle create": [*ours, "create", *told, "--out", str(made), "--value", f"firmware={source}"],
        "bundle extract-test": [*ours, "extract-test", str(made)],
        "openssl enc -aes-256-ctr": ["openssl", "enc", "-aes-256-ctr", *key, "-in", str(source), "-out", f"{made}.ctr"],
        "AES-GCM loop": [sys.executable, "-c", LOOP, str(source), f"{made}.gcm"],
        "age": ["age", "-r", AGE_RECIPIENT, "-o", f"{made}.age", str(source)],
    }


AGE_RECIPIENT: Final = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
"""The example of age's own manual; nobody opens what is encrypted here."""


def report(out: Path, found: dict[str, list[dict[str, Any]]], idle: float, missing: list[str]) -> list[Figure]:
    """Speed by CPU time, and memory above a command that does nothing."""
    speeds = {name: SIZE_MIB / median([one["cpu_s"] for one in spent]) for name, spent in found.items()}
    memory = {name: max(one["peak_mib"] for one in spent) for name, spent in found.items()}
    head: list[tuple[object, ...]] = [("200 MiB", "MiB/s of a core", "peak MiB", "above idle")]
    rows = [(name, speeds[name], memory[name], memory[name] - idle if name in OURS else None) for name in found]
    print(table([*head, *rows]))
    if missing:
        print(f"not on this machine: {', '.join(missing)}")
    print()
    figures = [
        *(Figure(f"{name}, 200 MiB", "MiB/s", TARGET_MIB_S, speeds[name], at_most=False) for name in OURS),
        *(Figure(f"{name}, memory", "MiB", TARGET_MEMORY_MIB, memory[name] - idle, at_most=True) for name in OURS),
    ]
    write_report(out / "bundle.json", figures, {"idle_mib": idle, "missing": missing, "runs": found})
    return figures
