"""The fetcher's line to the server: ranges by HTTPS, under the roots and the time of the link (docs/wire.md 4.8)."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from mpagent.errors import NoServer
from mpagent.finish.fetch import Range
from mpagent.link import Route
from mpwire.errors import MpError

if TYPE_CHECKING:
    from requests import Response

PIECE_BYTES: Final = 65_536
RENEW_BYTES: Final = 1_048_576
"""With every MiB the deadline of `Route.answer_s` begins anew: 17 KiB/s is the slowest line that is waited for."""
_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def make_download(route: Route, clock: Callable[[], float]) -> Callable[[Range], Iterator[bytes]]:
    """One connection to the server for each range."""

    def download(wanted: Range) -> Iterator[bytes]:
        from mpagent import transport  # imports requests

        line = transport.Transport(route, clock)
        try:
            with line.get_range(wanted.path, wanted.start, wanted.end) as response:
                _check_answer(response, wanted)
                yield from _read(response, wanted, line.renew)
        except (MpError, GeneratorExit):
            raise
        except Exception as error:
            translated = transport.translate(error, route)
            if translated is None:
                raise
            raise translated from error
        finally:
            line.close()

    return download


def _check_answer(response: "Response", wanted: Range) -> None:
    """206 for exactly this range, or 200 for the whole file. Anything else is a line that is not there yet."""
    headers, status = response.headers, response.status_code
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise NoServer("the server, or a proxy, compresses the image, which was not asked for")
    if status == 206:
        told = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if told and tuple(map(int, told.groups())) == (wanted.start, wanted.end - 1, wanted.size):
            return
        raise NoServer("the server gives another range of the image, or an image of another size, than was asked")
    whole = (wanted.start, wanted.end) == (0, wanted.size)
    if status == 200 and whole and headers.get("Content-Length") == str(wanted.size):
        return
    if status == 404:
        raise NoServer(f"the server has no image at {wanted.path}; next: mpserver product image")
    raise NoServer(f"the server, or a proxy, answers {status} where the image was asked for")


def _read(response: "Response", wanted: Range, renew: Callable[[], None]) -> Iterator[bytes]:
    left, since = wanted.end - wanted.start, 0
    while left:
        piece = response.raw.read(min(PIECE_BYTES, left))
        if not piece:
            raise NoServer("the server ended the image before its end")
        left, since = left - len(piece), since + len(piece)
        if since >= RENEW_BYTES:
            since = 0
            renew()
        yield piece
