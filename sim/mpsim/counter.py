"""A hardware counter as a vault sees it: no backend of a real one is there yet."""


class SoftCounter:
    """ports.Counter in a variable, so that it outlives a restored disk."""

    kind: str = "soft"

    def __init__(self) -> None:
        self._value = 0

    def read(self) -> int:
        """See ports.Counter."""
        return self._value

    def raise_to(self, value: int) -> None:
        """See ports.Counter."""
        self._value = max(self._value, value)
