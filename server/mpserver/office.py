"""What the OEM changes: products, keys, jobs. Each act is one transaction with its own ledger entry and audit row."""

import os
import pwd
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mpissuer.booking import digest_of_object
from mpissuer.errors import ProductWrong
from mpissuer.policy import Product, read_product
from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson, Usage
from mpserver.state import State
from mpserver.store.books import SqlBooks
from mpserver.store.products import read_products, seal_body
from mpserver.store.sequencer import Work
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
        """True when it was new. Raises NeedsPerson for a simulated part in production or a key known otherwise."""
        return self.import_keys([key]) == 1

    def import_keys(self, keys: Sequence[RegisteredKey]) -> int:
        """How many were new: all of them are registered or, where one is refused as by `import_key`, none."""
        new: dict[bytes, RegisteredKey] = {}
        for key in keys:
            if key.origin == "simulated" and self._state.realm == "production":
                raise NeedsPerson("a simulated part's key cannot be registered in realm production")
            known = new.get(key.key_id) or self._find_key(key.key_id)
            if known is not None and known != key:
                raise NeedsPerson(
                    f"key {key.key_id.hex()} is registered already, with other facts (origin {known.origin})"
                )
            if known is None:
                new[key.key_id] = key
        if new:
            self._do_all([self._make_registration(key) for key in new.values()])
        return len(new)

    def _find_key(self, key_id: bytes) -> RegisteredKey | None:
        row = self._connection.execute(
            "SELECT key_id, kind, public_key, origin, mp_use, part, use FROM attester_keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        return RegisteredKey(*row) if row else None

    def _make_registration(self, key: RegisteredKey) -> _Act:
        row = (key.kind, key.public_key, key.origin, key.mp_use, key.part, key.use)

        def change() -> None:
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
        self._state.keystore.make_job_key(name)
        self._move_job(name, "draft", "open", "approve")

    def end_job(self, name: str) -> None:
        """Nothing more is granted; the job's key is destroyed. Said again after a power cut it finishes the work."""
        state = self._job_state(name)
        if state is None:
            raise NeedsPerson(f"there is no job {name}: `mpserver job list` shows all")
        if state != "ended":
            self._move_job(name, state, "ended", "end")
        self._state.keystore.destroy_job_key(name)

    def note(self, action: str, subject: str, told: bytes) -> None:
        """Keep in the tree that this was done; `told` is what left the house, of which the digest is kept."""
        self._do("note", action, subject, digest_of_object("note", action, subject, told), lambda: None)

    def _move_job(self, name: str, present: str, then: str, action: str) -> None:
        def act() -> None:
            moved = self._connection.execute(
                "UPDATE jobs SET state = ? WHERE name = ? AND (state = ? OR ? = 'ended')", (then, name, present, then)
            )
            if moved.rowcount != 1:
                raise NeedsPerson(f"job {name} was changed by somebody else just now; look at it again")

        self._do("job", action, name, digest_of_object(then, name), act)

    def _check_mp_use(self, product: Product) -> None:
        """A class key signs or is a secret, never both (design section 4)."""
        for name, other in read_products(self._connection, self._state.authority).items():
            if name == product.name:
                continue
            shared = set(product.mp_keys) & set(other.mp_keys)
            if shared and other.mp_use != product.mp_use:
                raise ProductWrong(f"mp_use: product {name} already uses key {shared.pop().hex()} as {other.mp_use}")

    def _do(self, kind: str, action: str, subject: str, digest: bytes, change: Callable[[], None]) -> None:
        self._do_all([_Act(kind, action, subject, digest, change)])

    def _do_all(self, acts: Sequence[_Act]) -> None:
        """In one transaction, each with its audit row and its entry."""
        now = self._state.clock.now()

        def act(books: SqlBooks) -> None:
            for one in acts:
                one.change()
                self._connection.execute(
                    "INSERT INTO audit (at, actor, action, subject, digest) VALUES (?, ?, ?, ?, ?)",
                    (now, actor(), f"{one.kind} {one.action}", one.subject, one.digest),
                )
                books.append(ENTRY.encode(Entry(one.kind, now, one.subject, one.digest)))

        outcome = self._sequencer.settle([Work(act)])[0]
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
