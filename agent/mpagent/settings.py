"""mpagent.toml and its drop-ins: what a factory may set. Nothing here can weaken a check."""

from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from mpagent.tomlfile import Key, list_of, one_of, read_file, text, whole


class Settings(NamedTuple):
    """One value a program, read once."""

    server: str | None = None
    """https://HOST[:PORT], without a path."""
    proxy: str | None = None
    """http://HOST:PORT of a proxy that takes CONNECT."""
    wait_limit_s: int | None = None
    """How long `enroll --wait` tries again, in seconds; None: until it is stopped."""
    log: str = "info"
    """info: `enroll` tells its progress on standard error; error: it tells failures only."""
    indicator: tuple[str, ...] = ()
    """LEDs that show how the board stands, as /sys/class/leds names them."""
    bundle: tuple[Path, ...] = ()
    """Where bundles are looked for: files, folders of *.mpbundle, block devices. From the root on, as the next two."""
    receipts: Path | None = None
    """A folder that takes the receipts of bundles; it is not made."""
    job_secret_file: Path | None = None


def _url(scheme: str) -> Any:
    def check(value: Any) -> str:
        expected = ValueError(f'an address like "{scheme}://host:port", with no user, path or query')
        if not isinstance(value, str) or not value.isprintable() or " " in value:
            raise expected
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise expected from None
        plain = not (parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme != scheme or not parts.hostname or not plain or parts.path not in ("", "/") or port == 0:
            raise expected
        return value.rstrip("/")

    return check


def _led(value: Any) -> str:
    name: str = text(64)(value)
    if "/" in name or name.startswith("."):
        raise ValueError("names of LEDs as in /sys/class/leds")
    return name


def _absolute(value: Any) -> Path:
    if not isinstance(value, str) or not value.isprintable() or not value.startswith("/"):
        raise ValueError("a path from the root on, /...")
    return Path(value)


def _places(value: Any) -> tuple[Path, ...]:
    several: tuple[Path, ...] = list_of(_absolute, 1, 8)(value if isinstance(value, list) else [value])
    return several


_KNOWN: Final = {
    "server": Key(_url("https")),
    "proxy": Key(_url("http")),
    "wait_limit_s": Key(whole(1, 31_536_000)),
    "log": Key(one_of("error", "info")),
    "indicator": Key(list_of(_led, 1, 4)),
    "bundle": Key(_places),
    "receipts": Key(_absolute),
    "job_secret_file": Key(_absolute),
}


def read_settings(path: Path) -> Settings:
    """The file and then NAME.d/*.toml in the order of their names, a later value replacing an earlier one.

    Raises ConfigWrong naming file and line.
    """
    values: dict[str, Any] = {}
    folder = path.with_name(f"{path.name}.d")
    for one in (path, *sorted(folder.glob("*.toml"))):
        table = read_file(one)
        if table is not None:
            values.update(table.read(_KNOWN))
    return Settings(**values)
