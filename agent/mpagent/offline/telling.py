"""How a run by bundles is told: a line for people, an object for scripts."""

from collections.abc import Sequence
from typing import Any

from mpagent.offline.acceptance import Piece
from mpagent.offline.pickup import Outcome, Result
from mpwire.messages.bundle import AUTHORITIES


def describe_result(result: Result) -> dict[str, Any]:
    """What `enroll` adds to its own."""
    taken = {one: result.held.facts.of(one).version for one in AUTHORITIES if result.held.facts.of(one).version}
    versions = ", ".join(f"{authority} {version}" for authority, version in taken.items())
    missing = f", receipt not exported: {result.not_exported}" if result.not_exported else ""
    return {
        "standing": f"bundles {versions}{missing}",
        "bundle_versions": taken,
        "bundles": [describe_outcome(one) for one in result.outcomes],
        "receipt_exported": result.not_exported is None,
        "receipt_trouble": result.not_exported,
    }


def describe_outcome(one: Outcome) -> dict[str, Any]:
    """One bundle; what became of its components, where it was opened."""
    found: dict[str, Any] = {
        "path": str(one.path),
        "authority": one.authority,
        "version": one.version,
        "taken_before": one.taken_before,
    }
    if one.opened is not None:
        plan = one.opened.plan
        found["filled"] = _names([piece for piece in plan.written if not piece.replaces])
        found["replaced"] = _names([piece for piece in plan.written if piece.replaces])
        found["skipped"] = _names(plan.skipped)
        found["made"] = list(plan.made)
        found["policy"] = plan.policy is not None
        found["closed_proof"] = one.opened.closed_proof
    if one.trouble is not None:
        found["not_wiped"] = one.trouble
    return found


def write_outcome(one: Outcome) -> str:
    """The same as a clause."""
    head = f"{one.authority} version {one.version}"
    if one.opened is None:
        return f"{head}: taken before, nothing to do"
    told = describe_outcome(one)
    parts = [f"{verb} {', '.join(told[verb])}" for verb in ("filled", "replaced", "skipped", "made") if told[verb]]
    parts += ["rights of authorities replaced"] if told["policy"] else []
    return f"{head}: {'; '.join(parts)}"


def _names(pieces: Sequence[Piece]) -> list[str]:
    return [one.component.name for one in pieces]
