"""Part of the bench: an ES256 signature by a key in a token, through our pool and by python-pkcs11 alone.

The token is SoftHSM2 in both cases, so what differs is ours: hashing, borrowing a session, two spellings of the
signature. Rounds take every contestant in turn. Signatures a second; no target, for a real token sets its own pace.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

from figures import Figure, median, table, write_report

from mpserver.authority import FileAuthority, IssuerAuthority, make_keystore, open_safe
from mpserver.clock import SystemClock
from mpserver.keystore import Keystore
from mpserver.token import objects
from mpserver.token.pool import SESSIONS_MAX, Pool, Session
from mpserver.token.preparation import choose_token, name_token
from mpserver.token.safe import TokenSafe
from mpsim.softhsm import SoftHsm

ROUNDS: Final = 7
SIGNATURES: Final = 2_000
MESSAGE: Final = os.urandom(500)
"""About a Grant without certificates."""

Act = Callable[[], object]


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes signing.json."""
    token, clock = _make_token(scratch / "token"), SystemClock()
    settings = name_token(token.make_module(), token.label, "", str(token.pin_file))
    make_keystore(scratch / "keys", "lab", (), clock.now(), choose_token(settings))
    (scratch / "files").mkdir()
    make_keystore(scratch / "files" / "keys", "lab", (), clock.now())
    store = Keystore(scratch / "keys")
    authority = IssuerAuthority(open_safe(store), store, "lab", clock)
    files = FileAuthority(Keystore(scratch / "files" / "keys"), "lab", clock)
    assert isinstance(authority.safe, TokenSafe)
    raw = authority.safe.pool.run("", _sign_alone)
    contestants: dict[str, Callable[[], float]] = {
        "python-pkcs11 alone, one session": lambda: _rate(raw),
        "mpserver, token": lambda: _rate(lambda: authority.sign("grant", MESSAGE)),
        f"mpserver, token, {SESSIONS_MAX} threads": lambda: _rate_of_threads(lambda: authority.sign("grant", MESSAGE)),
        "mpserver, key in a file": lambda: _rate(lambda: files.sign("grant", MESSAGE)),
    }
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + ROUNDS):  # the first warms caches and is dropped
        for name, act in contestants.items():
            found[name].append(act())
    return _report(out, {name: rates[1:] for name, rates in found.items()}, authority.safe.pool)


def _report(out: Path, found: dict[str, list[float]], pool: Pool) -> list[Figure]:
    alone = median(found["python-pkcs11 alone, one session"])
    rows = [(name, median(rates), median(rates) / alone) for name, rates in found.items()]
    print("signing: ES256 a second over 500 bytes, SoftHSM2")
    print(table([("contestant", "a second", "ratio"), *rows]) + "\n")
    maker = pool.look()
    write_report(out / "signing.json", [], {"per_second": found, "token": f"{maker.manufacturer_id} {maker.model}"})
    return []


def _make_token(folder: Path) -> SoftHsm:
    token = SoftHsm(folder, "bench")
    token.initialize()
    return token


def _sign_alone(session: Session) -> Act:
    """As whoever has python-pkcs11 and nothing else: digest, one key, one session that nobody else uses meanwhile."""
    key, mechanism = objects.find(session, "grant"), session.p11.Mechanism.ECDSA
    return lambda: key.sign(hashlib.sha256(MESSAGE).digest(), mechanism=mechanism)


def _rate(act: Act, count: int = SIGNATURES) -> float:
    start = time.perf_counter()
    for _ in range(count):
        act()
    return count / (time.perf_counter() - start)


def _rate_of_threads(act: Act) -> float:
    threads = [Thread(target=_rate, args=(act, SIGNATURES // SESSIONS_MAX)) for _ in range(SESSIONS_MAX)]
    start = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return SIGNATURES / (time.perf_counter() - start)
