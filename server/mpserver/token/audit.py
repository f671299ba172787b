"""Every key in the token against the policy: what is missing, what is too much, and what is not as it has to be."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mpserver.errors import StoreDamaged
from mpserver.token import objects, policy
from mpserver.token.policy import JOB, PREFIX
from mpserver.token.pool import Pool, Session
from mpserver.token.preparation import list_keys


class Finding(NamedTuple):
    """One key. `trouble` is "" where all is as it has to be."""

    label: str
    key: str
    """Class, type and size, or "" for one that is missing."""
    trouble: str
    then: str = ""


class Expected(NamedTuple):
    """What the ledger and the certificates say."""

    points: dict[str, bytes]
    """Of the pairs whose public halves are certified, by name."""
    job_states: dict[str, str]


def audit(pool: Pool, expected: Expected) -> list[Finding]:
    """In the order of labels. Raises TokenAway, TokenRefused, SetUp."""
    return pool.run("listing keys", lambda session: sorted(_audit(session, expected)))


def _audit(session: Session, expected: Expected) -> Iterable[Finding]:
    seen: dict[str, int] = {}
    for key in list_keys(session):
        label = str(key[session.p11.Attribute.LABEL])
        name = label.removeprefix(PREFIX)
        seen[name] = seen.get(name, 0) + 1
        yield _judge(session, key, label, expected, seen[name])
    for name in policy.ALWAYS:
        if name not in seen:
            yield Finding(PREFIX + name, "", "it is missing", "find out who destroyed it; restore the token's backup")
    for job, state in expected.job_states.items():
        if state in ("open", "exhausted") and f"{JOB}{job}" not in seen:
            yield Finding(f"{PREFIX}{JOB}{job}", "", f"it is missing, and the job is {state}", "as above")


def _judge(session: Session, key: Any, label: str, expected: Expected, count: int) -> Finding:
    name, what = label.removeprefix(PREFIX), _describe(session, key)
    rule = policy.find_rule(name) if label.startswith(PREFIX) else None
    ident = bytes(key[session.p11.Attribute.ID] or b"")
    if rule is None or ident != policy.make_id(session.issuer, name):
        return Finding(label, what, "it is no key of this issuer", "find out who put it there, and who has the PIN")
    if count > 1:
        return Finding(label, what, "it is there twice", "find out who put it there, and who has the PIN")
    flaw = objects.find_flaw(session, key, rule)
    if flaw:
        return Finding(label, what, flaw, "take it for known to others: it was changed or put there by somebody")
    if rule.key_class == "PRIVATE_KEY":
        trouble = _check_pair(session, name, expected.points.get(name))
        return Finding(label, what, trouble, "a key of somebody else in the place of ours" if trouble else "")
    job = name.removeprefix(JOB) if name.startswith(JOB) else None
    if job is not None and expected.job_states.get(job) in (None, "ended"):
        state = expected.job_states.get(job, "not in the ledger")
        return Finding(label, what, f"the job is {state}, and its key still stands", f"mpserver job end {job}")
    return Finding(label, what, "")


def _check_pair(session: Session, name: str, certified: bytes | None) -> str:
    """By a signature, and against the certificate."""
    try:
        point = objects.read_point(session, name)
    except StoreDamaged as error:
        return str(error)
    if certified is not None and point != certified:
        return "it is another key than the one certified"
    return ""


def _describe(session: Session, key: Any) -> str:
    attribute = session.p11.Attribute
    told = key.get_attributes([attribute.CLASS, attribute.KEY_TYPE, attribute.VALUE_LEN])
    words = [getattr(told.get(one), "name", str(told.get(one))) for one in (attribute.CLASS, attribute.KEY_TYPE)]
    size = told.get(attribute.VALUE_LEN)
    return " ".join(words) + (f" {8 * size}" if size else "")
