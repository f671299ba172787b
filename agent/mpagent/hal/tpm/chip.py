"""One open TPM: every command goes through here, so that each failure has a meaning and no handle is left behind.

Loaded while the chip is open: the storage root and one session that keeps secrets from the bus. Everything else is
loaded for one call. A TPM without a resource manager has three slots of each kind, and keeps what a killed program
left in them: open() empties them.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final, TypeVar

from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareGone
from mpagent.hal.tpm import faults, templates
from mpagent.hal.tpm.blobs import WrappedObject
from mpagent.hal.tpm.templates import Template
from mpwire import tpm2
from mpwire.errors import MpError

Answer = TypeVar("Answer")
Meaning = Callable[[int], MpError | None]
"""What a reduced response code means to this caller; None leaves it to faults.explain."""

_KINDS: Final = ("device", "swtpm")
_LEFTOVER_RANGES: Final = (0x80000000, 0x02000000, 0x03000000)
"""First handle of: transient objects, loaded sessions, saved sessions (TPM 2.0 Library, Part 2, section 7.2)."""
_FLUSH_CONTEXT: Final = 0x00000165
_NO_SESSIONS: Final = 0x8001
_LOCKOUT_COUNTER: Final = 0x20E
"""TPM_PT_LOCKOUT_COUNTER; MAX_AUTH_FAIL and LOCKOUT_INTERVAL follow."""
_PAGE_HANDLES: Final = 254
_PAGES_MAX: Final = 16
"""More leftovers than this many pages of handles hold is no TPM we know."""


def _no_meaning(_code: int) -> MpError | None:
    return None


class Chip:
    """A TPM that answers. Close it, or three killed or careless runs fill it."""

    def __init__(self, tss: ModuleType, esapi: Any) -> None:
        self.tss: Any = tss
        self._esapi = esapi
        self._root: Any = None
        self._root_name = b""
        self._session: Any = None
        self._closed = False

    def run(self, doing: str, verb: Callable[[Any], Answer], meaning: Meaning = _no_meaning) -> Answer:
        """Do `verb` on the ESAPI context. Raises what `meaning` or else faults.explain makes of a refusal."""
        try:
            return verb(self._esapi)
        except self.tss.TSS2_Exception as refused:
            rc = int(refused.rc)
        code = faults.reduce_code(rc)
        if code == faults.LOCKOUT:
            raise self._explain_lockout(doing, rc)
        raise meaning(code) or faults.explain(rc, doing)

    def root(self) -> Any:
        """Handle of the storage root, made at the first call and kept until close()."""
        if self._root is None:
            self._root, public = self.make_primary(self.tss.ESYS_TR.OWNER, templates.STORAGE_ROOT, "making the SRK")
            self._root_name = tpm2.make_name(public)
        return self._root

    def root_name(self) -> bytes:
        """Name of the storage root: the same at every boot until the TPM is cleared."""
        self.root()
        return self._root_name

    def make_primary(self, hierarchy: Any, template: Template, doing: str) -> tuple[Any, bytes]:
        """Handle and TPMT_PUBLIC of a primary of this template; the caller flushes the handle."""
        wanted = self._public(template.wanted)
        handle, public, *_ = self.run(
            doing, lambda esapi: esapi.create_primary(self.tss.TPM2B_SENSITIVE_CREATE(), wanted, hierarchy)
        )
        return handle, bytes(public.publicArea.marshal())

    def make_child(self, template: Template, doing: str, sealed: bytes = b"") -> WrappedObject:
        """A new object under the storage root, not loaded; `sealed` is the data of a sealed object."""
        root, wanted, sensitive = self.root(), self._public(template.wanted), self.tss.TPM2B_SENSITIVE_CREATE()
        if sealed:
            sensitive.sensitive.data = self.tss.TPM2B_SENSITIVE_DATA(sealed)
        session = self.private_session(inward=True)
        private, public, *_ = self.run(doing, lambda esapi: esapi.create(root, sensitive, wanted, session1=session))
        return WrappedObject(self.root_name(), bytes(public.publicArea.marshal()), bytes(private))

    @contextmanager
    def loaded(self, wrapped: WrappedObject, doing: str, meaning: Meaning = _no_meaning) -> Iterator[Any]:
        """The object of this blob in the TPM, for as long as the block runs."""
        root, public = self.root(), self._public(wrapped.public)
        private = self.tss.TPM2B_PRIVATE(wrapped.private)
        handle = self.run(doing, lambda esapi: esapi.load(root, private, public), meaning)
        with self.holding(handle):
            yield handle

    @contextmanager
    def holding(self, handle: Any) -> Iterator[None]:
        """Flush the object or session when the block ends, however it ends."""
        try:
            yield
        finally:
            self._flush(handle)

    def private_session(self, *, inward: bool) -> Any:
        """The salted session whose first parameter is encrypted: of the command (inward) or of the answer.

        It hides secrets from a probe on the bus that only listens. An interposer that answers in the TPM's place is
        not kept out: the salt goes to the SRK, whose public half came over the same bus.
        """
        tss = self.tss
        if self._session is None:
            root, symmetric = self.root(), tss.TPMT_SYM_DEF.parse("aes128cfb")
            self._session = self.run(
                "opening a session",
                lambda esapi: esapi.start_auth_session(
                    root, tss.ESYS_TR.NONE, tss.TPM2_SE.HMAC, symmetric, tss.TPM2_ALG.SHA256
                ),
            )
        way = tss.TPMA_SESSION.DECRYPT if inward else tss.TPMA_SESSION.ENCRYPT
        attributes = tss.TPMA_SESSION.CONTINUESESSION | way
        self.run("opening a session", lambda esapi: esapi.trsess_set_attributes(self._session, attributes, 0xFF))
        return self._session

    @contextmanager
    def policy_session(self) -> Iterator[Any]:
        """A fresh policy session, for as long as the block runs. It encrypts nothing: see private_session."""
        tss = self.tss
        # First, because libtss2 3.2 keeps the salt of a session that the TPM had no room for, and would take it for
        # the next one's: a policy session after such a failure is refused with BAD_AUTH.
        self.private_session(inward=False)
        symmetric = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
        session = self.run(
            "opening a policy session",
            lambda esapi: esapi.start_auth_session(
                tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.POLICY, symmetric, tss.TPM2_ALG.SHA256
            ),
        )
        with self.holding(session):
            yield session

    def read_properties(self, first: int, count: int) -> Mapping[int, int]:
        """TPM properties by number (TPM 2.0 Library, Part 2, section 6.13)."""
        tss = self.tss
        _, answer = self.run(
            "reading properties", lambda esapi: esapi.get_capability(tss.TPM2_CAP.TPM_PROPERTIES, first, count)
        )
        return {int(item.property): int(item.value) for item in answer.data.tpmProperties}

    def flush_leftovers(self) -> int:
        """Empty every slot; how many a program before us had left full. Not for a TPM with a resource manager."""
        flushed = 0
        for first in _LEFTOVER_RANGES:
            for handle in self._list_handles(first):
                self._flush_raw(handle)
                flushed += 1
        return flushed

    def close(self) -> None:
        """Flush what is loaded, say TPM2_Shutdown and end the connection; closing twice is harmless.

        After a shutdown that was said a power cut counts as none: not as a failed try, should somebody else have used
        an object under dictionary-attack protection, and not as a reset of the clock that quotes tell. Any later
        command takes it back, of this program or another.
        """
        if self._closed:
            return
        self._closed = True
        for handle in (self._session, self._root):
            if handle is not None:
                self._flush(handle)
        self._session = self._root = None
        self._quietly(lambda: self._esapi.shutdown(self.tss.TPM2_SU.CLEAR))
        self._esapi.close()

    def _public(self, area: bytes) -> Any:
        public, _ = self.tss.TPMT_PUBLIC.unmarshal(area)
        return self.tss.TPM2B_PUBLIC(publicArea=public)

    def _flush(self, handle: Any) -> None:
        self._quietly(lambda: self._esapi.flush_context(handle))

    def _quietly(self, verb: Callable[[], Any]) -> None:
        try:
            verb()
        except self.tss.TSS2_Exception:
            # The TPM is gone or was reset, and what was loaded with it. The next command says so; raising here would
            # hide the failure that brought us to this `finally`.
            return

    def _list_handles(self, first: int) -> list[int]:
        found: list[int] = []
        for _ in range(_PAGES_MAX):
            more, page = self._list_page(found[-1] + 1 if found else first)
            found += page
            if not more:
                return found
        raise HardwareGone("the TPM lists handles without end: it is broken")

    def _list_page(self, first: int) -> tuple[bool, list[int]]:
        handles = self.tss.TPM2_CAP.HANDLES
        more, answer = self.run(
            "listing what is loaded", lambda esapi: esapi.get_capability(handles, first, _PAGE_HANDLES)
        )
        return bool(more), [int(handle) for handle in answer.data.handles]

    def _flush_raw(self, handle: int) -> None:
        """TPM2_FlushContext by number: ESAPI flushes only handles that it made itself."""
        command = struct.pack(">HIII", _NO_SESSIONS, 14, _FLUSH_CONTEXT, handle)

        def speak(esapi: Any) -> bytes:
            esapi.tcti.transmit(command)
            return bytes(esapi.tcti.receive())

        answer = self.run("emptying the TPM", speak)
        if len(answer) != 10:
            raise HardwareGone("the TPM answers nonsense while emptying it")
        (rc,) = struct.unpack_from(">I", answer, 6)
        if rc:
            raise faults.explain(rc, "emptying the TPM")

    def _explain_lockout(self, doing: str, rc: int) -> MpError:
        figures = self.read_properties(_LOCKOUT_COUNTER, 3)
        tries, tries_max, recovery_s = (figures.get(_LOCKOUT_COUNTER + index, 0) for index in range(3))
        return faults.explain_lockout(doing, tries, tries_max, recovery_s, f"TPM response code 0x{rc:08x}")


def open_chip(tcti: str) -> Chip:
    """The TPM behind an explicit TCTI string: "device:/dev/tpmrm0" or "swtpm:path=SOCKET".

    Without a resource manager (anything but /dev/tpmrm0) its slots are emptied first. Raises ConfigWrong for another
    string, HardwareAbsent when there is no such node or socket, HardwareGone when nothing answers there.
    """
    kind, _, where = tcti.partition(":")
    if kind not in _KINDS or not where:
        raise ConfigWrong(f"tpm_tcti {tcti!r} is not one of: device:PATH, swtpm:path=SOCKET")
    if not os.path.exists(where.removeprefix("path=")):  # before the library, which a board without a TPM need not load
        raise HardwareAbsent(f"no TPM answers at {tcti}: nothing has that name")
    tss = _import_tss()
    try:
        esapi = tss.ESAPI(tcti)
    except tss.TSS2_Exception as refused:
        detail = f"TSS response code 0x{int(refused.rc):08x}"
        raise HardwareGone(f"no TPM answers at {tcti}: check that it is there and free", detail=detail) from None
    chip = Chip(tss, esapi)
    if not where.endswith("/tpmrm0"):
        try:
            chip.flush_leftovers()
        except MpError:
            chip.close()
            raise
    return chip


def _import_tss() -> ModuleType:
    """tpm2-pytss, only now: it costs 26 MiB and most boards have no TPM."""
    # libtss2 prints to stderr from C, and this is the only way to stop it.
    os.environ["TSS2_LOG"] = "all+none"
    try:
        return import_module("tpm2_pytss")
    except ImportError as missing:
        raise ConfigWrong(
            "the TPM backend is not installed here: install mpagent with its extra `tpm`", detail=str(missing)
        ) from None
