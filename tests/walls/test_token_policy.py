"""docs/hsm.md prints the policy that the audit goes by, and names every finding and exit code of it."""

from mpserver.commands.hsm import TROUBLE_EXIT
from mpserver.token import policy
from mpserver.token.faults import TokenAway, TokenRefused
from tests.walls.rooms import ROOT

TEXT = (ROOT / "docs" / "hsm.md").read_text(encoding="utf-8")


def test_the_table_of_the_document_is_the_one_of_the_code() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith(f"| `{policy.PREFIX}")]
    assert rows == list(policy.write_table())[2:]
    assert len(rows) == len(policy.RULES) == len({rule.name for rule in policy.RULES})


def test_the_document_names_what_holds_for_every_key_and_every_mechanism() -> None:
    flags = {*policy.CLOSED, *policy.MADE_HERE, *policy.BROUGHT_IN}
    assert [one for one in flags if f"CKA_{one}" not in TEXT] == []
    assert [one for one in policy.MECHANISMS if one not in TEXT] == []


def test_the_document_names_the_exit_codes() -> None:
    for code in (TROUBLE_EXIT, TokenAway.exit_code, TokenRefused.exit_code):
        assert f"\n| {code} | " in TEXT, code


def test_no_rule_lets_a_key_out_or_be_used_for_what_would_let_it_out() -> None:
    for rule in policy.RULES:
        for uses in rule.uses:
            flags = rule.flags(uses)
            assert flags["SENSITIVE"] and not flags["EXTRACTABLE"] and not flags["MODIFIABLE"], rule.name
            assert not flags["WRAP"] and not flags["UNWRAP"], rule.name
            assert uses <= set(policy.USES) and flags["PRIVATE"], rule.name
