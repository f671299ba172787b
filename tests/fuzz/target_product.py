"""mpissuer.policy.read_product: only ProductWrong leaves it, and what it takes fits into a Grant."""

from tests.fuzz.drive import run

run("product")
