"""A clock that stands where it is put: for issuers and devices under test."""


class SetClock:
    """mpissuer.ports.Clock; seconds since 1970, UTC."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def now(self) -> int:
        """As it was set last."""
        return self.seconds

    def pass_by(self, seconds: int) -> None:
        """Time goes on."""
        self.seconds += seconds
