"""TLS for the link: pinned roots, no clock, no environment (design: Time). Imported with `requests`, late.

Decision: OpenSSL checks the chain without any clock (X509_V_FLAG_NO_CHECK_TIME), because a board at 1970 or 2100
must enroll; then this module refuses each certificate of the verified chain that ended before the time the image
and the record vouch for. The chain that OpenSSL verified, and no other, is what counts. Python has a public call for
it from 3.13 on; the call below it exists in every version from 3.10. Options were: verify the chain a second time
with cryptography.x509 (28 ms of CPU and 15 MiB more, and two verifiers that may disagree), or look at the leaf alone
(an ended intermediate would pass). Price: one private name, `_sslobj`; where it is missing the link refuses to work.
"""

import socket
import ssl
import warnings
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
import requests.exceptions
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NameResolutionError, SystemTimeWarning

from mpagent.errors import ConfigWrong, NoServer
from mpagent.link import Route
from mpwire import registry
from mpwire.errors import MpError, Unauthentic

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, openssl/x509_vfy.h."""
_HEADERS: Final = {
    "Content-Type": registry.CONTENT_TYPE,
    "Accept": registry.CONTENT_TYPE,
    "Accept-Encoding": "identity",
    "User-Agent": "mpagent",
}
E = TypeVar("E", bound=BaseException)


class _Socket(ssl.SSLSocket):
    """Reads until the context's deadline and not longer, however slowly the peer drips."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        context = self.context
        if isinstance(context, _Context) and context.deadline is not None:
            left = context.deadline - context.clock()
            if left <= 0:
                raise TimeoutError("the whole answer took too long")
            self.settimeout(min(context.read_s, left))
        return super().recv_into(buffer, nbytes, flags)


class _Context(ssl.SSLContext):
    """Trusts the roots of the image alone. Reads neither SSLKEYLOGFILE nor the system's authorities."""

    sslsocket_class = _Socket
    clock: Callable[[], float]
    read_s: float
    deadline: float | None
    now: int


def _make_context(route: Route, clock: Callable[[], float]) -> _Context:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # demands a certificate and checks the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        context.load_verify_locations(cadata="\n".join(route.tls_roots))
    except ssl.SSLError as error:
        raise ConfigWrong("anchors.toml: a certificate of tls_roots cannot be read", detail=str(error)) from error
    context.clock, context.read_s, context.deadline, context.now = clock, route.read_s, None, route.now
    return context


class _Connection(HTTPSConnection):
    """Looks at the verified chain before the first byte of a request goes out."""

    def connect(self) -> None:
        super().connect()
        if not isinstance(self.sock, _Socket):
            raise Unauthentic("the line is not TLS to the server")
        context = self.sock.context
        assert isinstance(context, _Context)  # only our context makes our sockets
        try:
            check_chain(self.sock, context.now)
        except BaseException:
            self.close()
            raise


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


def check_chain(sock: ssl.SSLSocket, now: int) -> None:
    """Raises Unauthentic for a certificate of the verified chain that ended before `now` (seconds since 1970)."""
    chain = sock._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # see the decision above
    if not chain:
        raise Unauthentic("the server showed no certificate chain")
    for certificate in chain:
        ended = str(certificate.get_info()["notAfter"])
        if ssl.cert_time_to_seconds(ended) < now:
            raise Unauthentic(
                f"a certificate of the server ended on {ended}, before this image was built or last heard the issuer; "
                "the server needs a new one"
            )


class _Adapter(HTTPAdapter):
    """Puts our context and our connection under requests, on both ways: direct and by CONNECT."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = {"https": _Pool}
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """requests would load its own list of public authorities into our context here."""
        conn.cert_reqs = "CERT_REQUIRED"


class Transport:
    """A session of requests with everything taken away that looks at the environment."""

    def __init__(self, route: Route, clock: Callable[[], float]) -> None:
        self.route = route
        self._context = _make_context(route, clock)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update(_HEADERS)
        self._session.adapters.clear()
        self._session.mount("https://", _Adapter(self._context))
        self._proxies = {} if route.proxy is None else {"https": route.proxy}
        warnings.simplefilter("ignore", SystemTimeWarning)  # the clock decides nothing here

    def post(self, path: str, body: bytes) -> requests.Response:
        """The answer with its headers read and its body still on the line."""
        route = self.route
        self.renew()
        return self._session.post(
            route.server + path,
            data=body,
            timeout=(route.connect_s, route.read_s),
            allow_redirects=False,
            stream=True,
            proxies=self._proxies,
        )

    def get_range(self, path: str, start: int, end: int) -> requests.Response:
        """Bytes `start` to `end` of a file below the server's address, the end not included; the body on the line."""
        route = self.route
        self.renew()
        return self._session.get(
            route.server + path,
            headers={"Accept": "*/*", "Content-Type": None, "Range": f"bytes={start}-{end - 1}"},
            timeout=(route.connect_s, route.read_s),
            allow_redirects=False,
            stream=True,
            proxies=self._proxies,
        )

    def renew(self) -> None:
        """The deadline of an answer begins now: for one that has shown that it goes on."""
        self._context.deadline = self._context.clock() + self.route.answer_s

    def close(self) -> None:
        """Close the connection, too, when an answer stands half-read on it."""
        self._session.close()


def probe(route: Route, clock: Callable[[], float]) -> str:
    """The TLS version of a connection that passed every check; says nothing on it. Raises NoServer, Unauthentic."""
    server, proxy = urlsplit(route.server), urlsplit(route.proxy or "")
    host, port = str(server.hostname), server.port or 443
    line = HTTPConnection(proxy.hostname or host, proxy.port or port, timeout=route.connect_s)
    if route.proxy is not None:
        line.set_tunnel(host, port)
    try:
        line.connect()
        with _make_context(route, clock).wrap_socket(line.sock, server_hostname=host) as sock:
            check_chain(sock, route.now)
            return str(sock.version())
    except (OSError, HTTPException) as error:
        raise translate(error, route) or error from error
    finally:
        line.close()


def translate(error: Exception, route: Route) -> MpError | None:
    """Our words for what requests, urllib3, ssl and the sockets raise; None for what is none of these: a bug."""
    if not isinstance(error, requests.exceptions.RequestException | HTTPError | HTTPException | OSError):
        return None
    unverified = _find(error, ssl.SSLCertVerificationError)
    if unverified is not None:
        return _explain_certificate(unverified)
    for kind, words in _CAUSES:
        if _find(error, kind) is not None:
            return NoServer(words.format(server=route.server, proxy=route.proxy), detail=repr(error))
    return NoServer(f"the line to {route.server} broke before an answer was whole", detail=repr(error))


_CAUSES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (NameResolutionError, "the name in {server} is not known to DNS; check the network and `server`"),
    (socket.gaierror, "the name in {server} is not known to DNS; check the network and `server`"),
    (urllib3.exceptions.ProxyError, "the proxy {proxy} does not let us through to {server}; check `proxy`"),
    (ConnectionRefusedError, "{server} refuses the connection: is mpserver running there?"),
    (urllib3.exceptions.ConnectTimeoutError, "{server} does not answer; check cable, network and firewall"),
    (ssl.SSLEOFError, "{server} closed the line before an answer was whole"),
    (ssl.SSLError, "{server} does not speak TLS as we do; check that it is mpserver, and its port"),
    (urllib3.exceptions.ReadTimeoutError, "{server} fell silent in the middle of an answer"),
    (TimeoutError, "{server} fell silent in the middle of an answer"),
)
"""The first that stands anywhere in the chain of an error wins."""
_HOST_MISMATCH: Final = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


def _explain_certificate(error: ssl.SSLCertVerificationError) -> MpError:
    if error.verify_code in _HOST_MISMATCH:
        return Unauthentic(
            f"the server's certificate is for another name: {error.verify_message}; use the name it was made for"
        )
    return Unauthentic(
        "the server's certificate is not under the roots of this image: it is another server, a TLS-intercepting "
        f"proxy, or this image belongs to another installation ({error.verify_message})"
    )


def _find(error: BaseException, kind: type[E]) -> E | None:
    """The first error of this kind among those wrapped in each other; urllib3 wraps by argument and by cause."""
    todo: list[Any] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        if isinstance(one, kind):
            return one
        seen.add(id(one))
        todo += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    return None
