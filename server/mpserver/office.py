"""What the OEM changes: products, keys, jobs. Each act is one transaction with its own ledger entry and audit row."""

import os
import pwd
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mpissuer.booking import digest_of_object
from mpissuer.errors import ProductWrong
from mpissuer.policy import Product, read_product
from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson, Usage
from mpserver.importlist import SignedKeys
from mpserver.mpuse import any_hidden, check_not_registered, check_signs, find_pinned, is_burnt, is_hidden
from mpserver.state import State
from mpserver.store.books import SqlBooks
from mpserver.store.products import read_products, seal_body
from mpserver.store.sequencer import Work
from mpwire.cose import thumbprint
from mpwire.messages.issuer import ENTRY, Entry

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Job and product names: short enough for the wire, plain enough for a shell."""
QUOTA_MAX: Final = 2**31 - 1
"""Boards of one job: more than any order, and within what every column and entry holds."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job is about, before anybody approved it."""

    name: str
    product: str
    quota: int


@dataclass(frozen=True, slots=True)
class _Act:
    """One change, and how it stands in the tree."""

    kind: str
    action: str
    subject: str
    digest: bytes
    change: Callable[[], None]


class Office:
    """One person at the command line. Refuses by raising; what is done is durable on return."""

    def __init__(self, state: State) -> None:
        self._state, self._connection = state, state.connection
        self._sequencer = state.make_sequencer(state.connection)

    def add_product(self, text: str) -> tuple[Product, int]:
        """The product and its new version. Raises ProductWrong, NeedsPerson for another realm's product."""
        product = read_product(text)
        _check_name("product", product.name)
        if product.realm != self._state.realm:
            raise ProductWrong(
                f"product {product.name} is for realm {product.realm}, this server is {self._state.realm}"
            )
        self._check_mp_use(product)
        version = 1 + self._count("SELECT coalesce(max(version), 0) FROM products WHERE name = ?", product.name)

        body = seal_body(self._state.authority, product.name, version, text)

        def act() -> None:
            self._connection.execute(
                "INSERT INTO products (name, version, body, digest, added_at) VALUES (?, ?, ?, ?, ?)",
                (product.name, version, body, product.digest, self._state.clock.now()),
            )

        self._do("product", "add", product.name, product.digest, act)
        return product, version

    def import_key(self, key: RegisteredKey) -> bool:
        """True when it was new. Raises as `import_keys`."""
        return self.import_keys([key]) == 1

    def import_keys(self, keys: Sequence[RegisteredKey]) -> int:
        """Keys that no list vouches for. How many were new: all of them are registered or, where one is refused, none.

        Raises NeedsPerson: realm production, which takes keys by signed lists alone; a key known with other facts; an
        MP key that is a secret.
        """
        new = self._find_new(keys)
        if self._state.realm == "production":
            raise NeedsPerson(
                "import-unsigned: realm production registers keys by a signed list alone; `mpserver key sign-list`"
                " makes one"
            )
        if new:
            self._do_all([self._make_registration(key) for key in new])
        return len(new)

    def trusted_signers(self) -> dict[bytes, bytes]:
        """Points of the signers whose import lists count, by thumbprint."""
        rows = self._connection.execute("SELECT thumbprint, point FROM import_signers WHERE dismissed_at IS NULL")
        return dict(rows.fetchall())

    def trust_signer(self, point: bytes) -> bool:
        """True when it was new. Raises NeedsPerson in realm production, where one person is not enough; dismissed."""
        if self._state.realm == "production":
            raise NeedsPerson("in realm production two people trust a signer, with passkeys: not in this version")
        name = thumbprint(point)
        if name in self.trusted_signers():
            return False
        if self._count("SELECT count(*) FROM import_signers WHERE thumbprint = ?", name):
            raise NeedsPerson(f"signer {name.hex()} was dismissed, which is for good: make another")

        def act() -> None:
            self._connection.execute(
                "INSERT INTO import_signers (thumbprint, point, added_at) VALUES (?, ?, ?)",
                (name, point, self._state.clock.now()),
            )

        self._do("signer", "trust", name.hex(), digest_of_object("signer", name, point), act)
        return True

    def dismiss_signer(self, name: bytes) -> bool:
        """False when it was done before. What his lists registered stays. Raises NeedsPerson: nobody trusted him."""
        if not self._count("SELECT count(*) FROM import_signers WHERE thumbprint = ?", name):
            raise NeedsPerson(f"no signer {name.hex()} was ever trusted; `mpserver key signers` lists all")
        if name not in self.trusted_signers():
            return False

        def act() -> None:
            self._connection.execute(
                "UPDATE import_signers SET dismissed_at = ? WHERE thumbprint = ?", (self._state.clock.now(), name)
            )

        self._do("signer", "dismiss", name.hex(), digest_of_object("dismissed", name), act)
        return True

    def import_list(self, told: SignedKeys) -> int:
        """How many keys were new. The list, its signer and number, and all its keys are entered together or not at all.

        Raises NeedsPerson: the sequence number is not above that of every list taken from this signer; a key as in
        `import_keys`.
        """
        new = self._find_new(told.keys)
        self._do_all([self._make_taking(told), *(self._make_registration(key) for key in new)])
        return len(new)

    def _make_taking(self, told: SignedKeys) -> _Act:
        """Compares inside the transaction, so that of two at once one is refused."""
        row = (told.signer, told.sequence, told.digest, len(told.keys))

        def act() -> None:
            if told.signer not in self.trusted_signers():
                raise NeedsPerson("import-signer: the signer was dismissed just now")
            self._check_sequence(told)
            self._connection.execute(
                "INSERT INTO import_lists (signer, sequence, digest, records, taken_at) VALUES (?, ?, ?, ?, ?)",
                (*row, self._state.clock.now()),
            )

        return _Act("import", f"list {told.sequence}", told.signer.hex(), digest_of_object("import", *row), act)

    def _check_sequence(self, told: SignedKeys) -> None:
        rows = self._connection.execute(
            "SELECT sequence, digest FROM import_lists WHERE signer = ? ORDER BY sequence DESC LIMIT 1", (told.signer,)
        ).fetchall()
        for last, digest in rows:
            if (last, digest) == (told.sequence, told.digest):
                raise NeedsPerson(f"import-sequence: this very list, number {last}, was taken before; nothing was done")
            if told.sequence <= last:
                raise NeedsPerson(
                    f"import-sequence: the list is number {told.sequence}, and {last} of this signer was taken before:"
                    f" a replay or an old list; a new one is numbered {last + 1} or above"
                )

    def _find_new(self, keys: Sequence[RegisteredKey]) -> list[RegisteredKey]:
        """Those not registered yet, each once. Raises NeedsPerson: simulated in production, or known otherwise."""
        new: dict[bytes, RegisteredKey] = {}
        pinned = find_pinned(read_products(self._connection, self._state.authority))
        for key in keys:
            check_signs(self._connection, key, pinned)
            if key.origin == "simulated" and self._state.realm == "production":
                raise NeedsPerson("a simulated part's key cannot be registered in realm production")
            known = new.get(key.key_id) or self._find_key(key.key_id)
            if known is not None and known != key:
                raise NeedsPerson(
                    f"key {key.key_id.hex()} is registered already, with other facts (origin {known.origin})"
                )
            if known is None:
                new[key.key_id] = key
        return list(new.values())

    def _find_key(self, key_id: bytes) -> RegisteredKey | None:
        row = self._connection.execute(
            "SELECT key_id, kind, public_key, origin, mp_use, part, use FROM attester_keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        return RegisteredKey(*row) if row else None

    def _make_registration(self, key: RegisteredKey) -> _Act:
        row = (key.kind, key.public_key, key.origin, key.mp_use, key.part, key.use)

        def change() -> None:
            check_signs(self._connection, key)
            self._connection.execute(
                "INSERT INTO attester_keys (key_id, kind, public_key, origin, mp_use, part, use, added_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key.key_id, *row, self._state.clock.now()),
            )

        return _Act("key", "import", key.key_id.hex()[:64], digest_of_object("key", key.key_id, *row), change)

    def record_comparison(self, product: str, verdict: str, one: bytes, other: bytes) -> None:
        """That two boards of a product had the MP keys of these ids: one and the same ("class") or not ("device").

        Raises NeedsPerson: there is no such product.
        """
        if not self._count("SELECT count(*) FROM products WHERE name = ?", product):
            raise NeedsPerson(f"there is no product {product}; `mpserver product show` lists all")

        def act() -> None:
            self._connection.execute(
                "INSERT INTO mp_comparisons (at, product, verdict, one, other) VALUES (?, ?, ?, ?, ?)",
                (self._state.clock.now(), product, verdict, one, other),
            )

        self._do("key", "compare", product, digest_of_object("mp-compare", product, verdict, one, other), act)

    def create_job(self, plan: JobPlan) -> None:
        """A draft. Raises Usage, NeedsPerson."""
        _check_name("job", plan.name)
        if not 1 <= plan.quota <= QUOTA_MAX:
            raise Usage(f"a quota is 1 to {QUOTA_MAX} boards")
        if not self._count("SELECT count(*) FROM products WHERE name = ?", plan.product):
            raise NeedsPerson(f"there is no product {plan.product}: add it first with `mpserver product add`")
        if self._job_state(plan.name) is not None:
            raise NeedsPerson(f"there is a job {plan.name} already; a job's name is used once")

        def act() -> None:
            place = 1 + self._count("SELECT coalesce(max(place), 0) FROM jobs")
            self._connection.execute(
                "INSERT INTO jobs (name, product, quota, state, place, author, created_at)"
                " VALUES (?, ?, ?, 'draft', ?, ?, ?)",
                (plan.name, plan.product, plan.quota, place, actor(), self._state.clock.now()),
            )

        self._do("job", "create", plan.name, digest_of_object("draft", plan.name, plan.product, plan.quota), act)

    def approve_job(self, name: str) -> None:
        """Draft to open, in realm lab by one person. The job's key is made first: no key, no open job."""
        state = self._job_state(name)
        if state is None:
            raise NeedsPerson(f"there is no job {name}: `mpserver job list` shows all")
        if state != "draft":
            raise NeedsPerson(f"job {name} is {state}; only a draft can be approved")
        self._state.safe.make_job_key(name)
        self._move_job(name, "draft", "open", "approve")

    def end_job(self, name: str) -> None:
        """Nothing more is granted; the job's key is destroyed. Said again after a power cut it finishes the work."""
        state = self._job_state(name)
        if state is None:
            raise NeedsPerson(f"there is no job {name}: `mpserver job list` shows all")
        if state != "ended":
            self._move_job(name, state, "ended", "end")
        self._state.safe.destroy_job_key(name)

    def note(self, action: str, subject: str, told: bytes) -> None:
        """Keep in the tree that this was done; `told` is what left the house, of which the digest is kept."""
        self._do("note", action, subject, digest_of_object("note", action, subject, told), lambda: None)

    def enter(self, kind: str, action: str, subject: str, digest: bytes, change: Callable[[], None]) -> None:
        """One act of another room of this house, in one transaction with its audit row and its entry."""
        self._do(kind, action, subject, digest, change)

    def _move_job(self, name: str, present: str, then: str, action: str) -> None:
        def act() -> None:
            moved = self._connection.execute(
                "UPDATE jobs SET state = ? WHERE name = ? AND (state = ? OR ? = 'ended')", (then, name, present, then)
            )
            if moved.rowcount != 1:
                raise NeedsPerson(f"job {name} was changed by somebody else just now; look at it again")

        self._do("job", action, name, digest_of_object(then, name), act)

    def _check_mp_use(self, product: Product) -> None:
        """A class key signs or is a secret, never both. Raises ProductWrong."""
        if product.mpk is None:
            self._check_pinned(product)
            return
        try:
            check_not_registered(self._connection, product.mpk)
        except NeedsPerson as error:
            raise ProductWrong(f"mpk: {error}", key="mpk") from error
        if is_burnt(self._connection, product.mpk) and not is_hidden(self._connection, product.mpk):
            raise ProductWrong("mpk: a signature by this key was seen here: it is no secret any more", key="mpk")

    def _check_pinned(self, product: Product) -> None:
        """Of a secret this server has no digest that a pin could be held against; a key that is registered is none."""
        if not (any_hidden(self._connection) or find_pinned(read_products(self._connection, self._state.authority))):
            return
        for key_id in product.mp_keys:
            if not self._count("SELECT count(*) FROM attester_keys WHERE key_id = ? AND kind = 'mp'", key_id):
                raise ProductWrong(
                    f"mp_keys: {key_id.hex()} is not registered, and a key here is a secret: import this one first, so"
                    " that it is shown to be another",
                    key="mp_keys",
                )

    def _do(self, kind: str, action: str, subject: str, digest: bytes, change: Callable[[], None]) -> None:
        self._do_all([_Act(kind, action, subject, digest, change)])

    def _do_all(self, acts: Sequence[_Act]) -> None:
        """In one transaction, each with its audit row and its entry."""
        now = self._state.clock.now()

        def act(books: SqlBooks) -> None:
            books.has_written = True  # by our own statements: what the first act wrote falls with the second
            for one in acts:
                one.change()
                self._connection.execute(
                    "INSERT INTO audit (at, actor, action, subject, digest) VALUES (?, ?, ?, ?, ?)",
                    (now, actor(), f"{one.kind} {one.action}", one.subject, one.digest),
                )
                books.append(ENTRY.encode(Entry(one.kind, now, one.subject, one.digest)))

        outcome = self._sequencer.settle([Work(act)])[0]
        if isinstance(outcome, sqlite3.IntegrityError):
            raise NeedsPerson("somebody else did the same just now; look at it again") from outcome
        if isinstance(outcome, Exception):
            raise outcome

    def _count(self, sql: str, *parameters: object) -> int:
        return int(self._connection.execute(sql, parameters).fetchone()[0])

    def _job_state(self, name: str) -> str | None:
        row = self._connection.execute("SELECT state FROM jobs WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None


def actor() -> str:
    """Who runs this process, by the system's own list: an environment variable can say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise Usage(f"{what} name {name!r}: 1 to 64 letters, digits, dots, dashes and underscores, no other first sign")
