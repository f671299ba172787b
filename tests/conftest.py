"""What every test shares: where generated examples go, and how many a bounded run tries."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, configuration, settings

configuration.set_hypothesis_home_dir(Path(__file__).parent.parent / "out" / "hypothesis")
# Two processes share the cores with a TPM and a server: a slow example is no finding.
settings.register_profile("bounded", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bounded")


def pytest_addoption(parser: pytest.Parser) -> None:
    """A token of your own, which has to be empty: each test of tests/contract destroys the keys that it makes there."""
    parser.addoption("--own-token", nargs=3, metavar=("MODULE", "LABEL", "PIN-FILE"), help="for tests/contract")
