"""Card readers through PC/SC (pyscard's thin layer, imported here and nowhere else).

Each use of the card connects anew and exclusively, and resets the card when it lets go: nobody else can use the PIN we
gave, a card that was pulled and put back is no error, and no call waits for another program without end, as
SCardBeginTransaction does.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from mpagent.errors import ConfigWrong, HardwareAbsent
from mpagent.hal.card import faults
from mpagent.hal.card.apdu import Transmit
from mpwire.errors import MpError

HOLD_WAIT_MAX_S: Final = 2.0
"""How long another program may finish what it does with the card. Longer, and it keeps the card for itself."""
_POLL_S: Final = 0.05
_CASE_4_BYTES: Final = 6
"""A header, Lc and Le: an APDU of at least this length that holds one byte beyond its data has both."""


class Reader(Protocol):
    """Where a card is, or is not."""

    def hold(self) -> AbstractContextManager[Transmit]:
        """The card for ourselves, for as long as the block runs; afterwards no PIN counts as given any more.

        Raises HardwareAbsent: no reader. HardwareGone: no card in it. HardwareBusy: somebody else has the card.
        """


class PcscReader:
    """The one reader with a card in it, among those whose name holds `name`; "" means any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scard = _import_scard()

    @contextmanager
    def hold(self) -> Iterator[Transmit]:
        """See Reader. Raises ConfigWrong when several cards could be meant."""
        scard = self._scard
        with self._context() as context:
            handle, protocol = self._connect(context, self._find(context))
            header = scard.SCARD_PCI_T0 if protocol == scard.SCARD_PROTOCOL_T0 else scard.SCARD_PCI_T1

            def transmit(apdu: list[int]) -> tuple[list[int], int, int]:
                code, said = scard.SCardTransmit(
                    handle, header, fit_protocol(apdu, protocol == scard.SCARD_PROTOCOL_T0)
                )
                self._check(code, "talking to the card")
                if len(said) < 2:  # a status word always comes, but for a card that left
                    raise faults.explain_result("SCARD_W_REMOVED_CARD", code, "reading its answer")
                return said[:-2], said[-2], said[-1]

            try:
                yield transmit
            finally:
                # Its result says only whether the card is still there, which the next use finds out.
                scard.SCardDisconnect(handle, scard.SCARD_RESET_CARD)

    @contextmanager
    def _context(self) -> Iterator[Any]:
        code, context = self._scard.SCardEstablishContext(self._scard.SCARD_SCOPE_SYSTEM)
        self._check(code, "asking the PC/SC service")
        try:
            yield context
        finally:
            self._scard.SCardReleaseContext(context)

    def _find(self, context: Any) -> str:
        """The reader to use, chosen afresh: one that was plugged in again may have another number."""
        code, names = self._scard.SCardListReaders(context, [])
        self._check(code, "listing readers")
        meant = [name for name in names if self._name in name]
        if not meant:
            raise HardwareAbsent(
                f"no card reader is named like {self._name!r}; there are: {', '.join(names)}",
                advice="plug that reader in, or name one of those in the image",
            )
        filled = self._find_filled(context, meant)
        if not filled:
            raise faults.explain_result("SCARD_E_NO_SMARTCARD", 0x8010000C, f"looking into {', '.join(meant)}")
        if len(filled) > 1:
            raise ConfigWrong(f"several readers hold a card and none is named alone: {', '.join(filled)}")
        return filled[0]

    def _find_filled(self, context: Any, names: list[str]) -> list[str]:
        scard = self._scard
        asked = [(name, scard.SCARD_STATE_UNAWARE) for name in names]
        code, states = scard.SCardGetStatusChange(context, 0, asked)
        self._check(code, "looking for a card")
        return [name for name, state, _ in states if state & scard.SCARD_STATE_PRESENT]

    def _connect(self, context: Any, reader: str) -> tuple[Any, int]:
        scard, deadline = self._scard, time.monotonic() + HOLD_WAIT_MAX_S
        protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        while True:
            code, handle, protocol = scard.SCardConnect(context, reader, scard.SCARD_SHARE_EXCLUSIVE, protocols)
            if code != scard.SCARD_E_SHARING_VIOLATION or time.monotonic() > deadline:
                self._check(code, f"connecting to the card in {reader}")
                return handle, protocol
            time.sleep(_POLL_S)

    def _check(self, code: int, doing: str) -> None:
        if code != self._scard.SCARD_S_SUCCESS:
            raise self._explain(code, doing)

    def _explain(self, code: int, doing: str) -> MpError:
        named = [name for name in faults.RESULTS if getattr(self._scard, name) == code]
        return faults.explain_result(named[0] if named else "", code, doing)


def fit_protocol(apdu: list[int], is_t0: bool) -> list[int]:
    """T=0 has no room for Lc and Le in one command: the card then says 61xx (ISO/IEC 7816-3 section 12.2.4)."""
    has_both = len(apdu) >= _CASE_4_BYTES and len(apdu) == _CASE_4_BYTES + apdu[4]
    return apdu[:-1] if is_t0 and has_both else apdu


def _import_scard() -> Any:
    try:
        from smartcard import scard
    except ImportError as missing:
        raise ConfigWrong(
            "the card backend is not installed here: install mpagent with its extra `card`", detail=str(missing)
        ) from None
    return scard
