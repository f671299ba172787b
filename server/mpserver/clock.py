"""The issuer's clock."""

import time


class SystemClock:
    """mpissuer.ports.Clock by the machine; keep it right (chrony): it dates Grants and heads."""

    def now(self) -> int:
        """Seconds since 1970, UTC."""
        return int(time.time())
