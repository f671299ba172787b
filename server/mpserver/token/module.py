"""A PKCS#11 module in this process: loaded once, told that several threads call it, started anew when a token is lost.

python-pkcs11 starts a module by C_Initialize(NULL), which promises calls from one thread alone (PKCS#11 section 5.4);
SoftHSM2 takes it at its word, drops its locks and fails in confusion under two. So the start is ours, with
CKF_OS_LOCKING_OK; a module that cannot lock (CKR_CANT_LOCK) gets one session and one caller at a time.
"""

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Lock
from typing import Any, Final

from mpserver.errors import SetUp
from mpserver.token.faults import TokenAway, explain

OS_LOCKING: Final = 0x2
"""CKF_OS_LOCKING_OK."""
_OK, _CANT_LOCK, _ALREADY, _NOT_YET = 0x0, 0xA, 0x191, 0x190
LABEL_BYTES: Final = 32
"""CK_TOKEN_INFO.label, padded with blanks."""

_Call = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
_InitToken = ctypes.CFUNCTYPE(
    ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, use_errno=False
)


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS; NSS has a string before the last field, which a null serves as well."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")),
        ("flags", ctypes.c_ulong),
        ("parameters", ctypes.c_char_p),
        ("reserved", ctypes.c_void_p),
    )


class _Functions(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("initialize", _Call),
        ("finalize", _Call),
        *((f"unused{number}", ctypes.c_void_p) for number in range(7)),
        ("init_token", _InitToken),
    )


class Module:
    """One library. `generation` rises with every start: sessions of an earlier one are dead."""

    def __init__(self, path: Path, parameters: bytes | None = None) -> None:
        self.path: Final = path
        self.generation = 0
        self.is_locking = True
        self.turn: Final = Condition()
        self.lent = 0
        """Sessions in use, of every pool; guarded by `turn`."""
        self._parameters = parameters
        self.p11: Final = _import_p11()
        _check_file(path)
        self._functions = _find_functions(path)
        self.library = self._load()

    def restart(self) -> None:
        """End every session of this process and look for tokens anew. The caller sees to it that none is in use."""
        self.generation += 1
        self.stop()
        self._start()

    def stop(self) -> None:
        """C_Finalize: every session ends, and the PIN is wanted again."""
        self._functions.finalize(None)

    def list_tokens(self) -> list[Any]:
        """Every initialised token in a slot. Raises TokenAway."""
        flag = int(self.p11.TokenFlag.TOKEN_INITIALIZED)
        return [one for one in map(self._look, self._slots()) if one is not None and int(one.flags) & flag]

    def list_blank(self) -> list[Any]:
        """Slots with a token that nobody initialised. Raises TokenAway."""
        flag = int(self.p11.TokenFlag.TOKEN_INITIALIZED)
        return [one.slot for one in map(self._look, self._slots()) if one is not None and not int(one.flags) & flag]

    def initialize_token(self, slot: Any, so_pin: str, label: str) -> None:
        """C_InitToken, which python-pkcs11 does not have. Raises SetUp."""
        pin = so_pin.encode()
        code = self._functions.init_token(slot.slot_id, pin, len(pin), label.encode().ljust(LABEL_BYTES))
        if code != _OK:
            raise SetUp(f"the PKCS#11 module {self.path} does not initialise a token (CKR 0x{code:x})")

    def _slots(self) -> list[Any]:
        try:
            return list(self.library.get_slots(token_present=True))
        except RuntimeError as refused:
            raise explain(refused, "listing tokens") from None

    def _look(self, slot: Any) -> Any:
        """None for a slot that tells nothing: its token was pulled since the list was made, or it is not for us."""
        try:
            return slot.get_token()
        except RuntimeError:
            return None

    def _load(self) -> Any:
        from pkcs11._pkcs11 import lib  # what pkcs11.lib() makes, whose start can be ours

        module = self
        starts: list[Module] = []

        class OurStart(lib):
            def initialize(self) -> None:
                module._start()
                starts.append(module)

        try:
            made = OurStart(str(self.path))
        except RuntimeError as refused:
            raise TokenAway(f"the PKCS#11 module {self.path} does not start ({type(refused).__name__})") from None
        if not starts:  # a release that starts modules otherwise has started it without locks
            raise SetUp("this python-pkcs11 cannot be told that several threads call: 0.10.1 or later is needed")
        return made

    def _start(self) -> None:
        """Raises TokenAway. One that another part of this process started is taken as it is."""
        arguments = _InitializeArguments(flags=OS_LOCKING, parameters=self._parameters)
        code = self._functions.initialize(ctypes.addressof(arguments))
        if code == _CANT_LOCK:
            self.is_locking, code = False, self._functions.initialize(None)
        if code not in (_OK, _ALREADY):
            raise TokenAway(f"the PKCS#11 module {self.path} does not start (CKR 0x{code:x}): is its device there?")


_loaded: dict[Path, Module] = {}
_loading = Lock()


def load_module(path: Path) -> Module:
    """The one of this process. Raises SetUp, TokenAway."""
    with _loading:
        if path not in _loaded:
            _loaded[path] = Module(path)
        return _loaded[path]


def _import_p11() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise SetUp("the PKCS#11 backend is not installed: install mpagent-server with its extra `pkcs11`") from None
    return pkcs11


def _check_file(path: Path) -> None:
    """A module is code of ours once it is loaded. Raises SetUp."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise SetUp(f"no PKCS#11 module {path}: {error.strerror}; name the library of the token's maker") from None
    if not path.is_absolute():
        raise SetUp(f"the PKCS#11 module {path} is not named from the root on")
    if stat.S_IMODE(mode) & 0o002:
        raise SetUp(f"everybody may write the PKCS#11 module {path}: it is code that runs here; chmod o-w it")


def _find_functions(path: Path) -> _Functions:
    """C_GetFunctionList: the one name that every module exports. Raises SetUp."""
    found = ctypes.c_void_p()
    try:
        get: Callable[..., int] = ctypes.CDLL(str(path)).C_GetFunctionList
    except (OSError, AttributeError):
        raise SetUp(f"{path} is no PKCS#11 module") from None
    if get(ctypes.byref(found)) != _OK or not found.value:
        raise SetUp(f"{path} is no PKCS#11 module")
    return _Functions.from_address(found.value)
