"""Runs the doors of one decoder under atheris: the first byte chooses the door, the rest goes through it.

Inputs grow from the doors' own samples by changes of items (mutation.py), and at times by libFuzzer's own of bytes.
"""

import sys
from pathlib import Path
from random import Random

import atheris

OURS = [
    "mpwire",
    "mpagent",
    "mpissuer",
    "mpserver.console",
    "mpserver.importlist",
    "mpserver.mpfinding",
    "mpserver.scan",
]

with atheris.instrument_imports(include=OURS):
    from tests.fuzz.appraisal import ISSUER
    from tests.fuzz.bundling import bundle_doors
    from tests.fuzz.decoders import WIRE, knock
    from tests.fuzz.images import IMAGES


def run(name: str) -> None:
    """Never returns. The last argument is the folder of the corpus, which gets the samples."""
    doors = list({**WIRE, **ISSUER, "bundle": bundle_doors, **IMAGES}[name]().values())
    samples = [bytes([number]) + door.sample for number, door in enumerate(doors)]

    def try_one(raw: bytes) -> None:
        if raw:
            knock(doors[raw[0] % len(doors)], raw[1:])

    def mutate(raw: bytes, high: int, seed: int) -> bytes:
        random = Random(seed)
        if len(raw) < 2 or random.randrange(4) == 0:
            raw = random.choice(samples)
        body = doors[raw[0] % len(doors)].mutate(raw[1:], random)
        if random.randrange(4) == 0:
            body = atheris.Mutate(body, max(high - 1, len(body)))
        return (raw[:1] + body)[:high]

    corpus = Path(sys.argv[-1])
    for raw in samples if corpus.is_dir() else ():
        (corpus / f"sample-{raw[0]}").write_bytes(raw)
    atheris.Setup(sys.argv, try_one, custom_mutator=mutate)
    atheris.Fuzz()
