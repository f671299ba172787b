"""A Proof taken apart."""

from typing import NamedTuple

from mpissuer.policy import Product
from mpwire.cose import Sign1
from mpwire.messages.plain import Challenge, Hello, Material, Proof


class Heard(NamedTuple):
    """Nothing of it is authentic yet but that this issuer said the Challenge."""

    proof: Proof
    hello: Hello
    challenge: Challenge
    outer: Sign1
    product: Product

    @property
    def material(self) -> Material:
        """What the Hello says of the attester."""
        return self.hello.attester
