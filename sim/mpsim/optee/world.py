"""The secure world of one boot: which applications there are, their sessions, and the accidents of the scenario."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from uuid import UUID

from mpsim.optee.applications import DigprogPta, MpPta, MpSignTa, OcotpPta, OldMpPta
from mpsim.optee.attestation import AttestationPta, KeyStore
from mpsim.optee.gp import NUM_PARAMS, Application, Origin, Param, Result, TeeRefusal
from mpsim.optee.scenario import HANG, Fault, Scenario, read_scenario
from mpsim.silicon import Chip

MP: Final = UUID("83268b7c-85e3-11e8-adc0-fa7ae01bbebc")
OCOTP: Final = UUID("9abdf255-d8fa-40de-8f60-4d0b27927b7d")
DIGPROG: Final = UUID("bfdbe409-3302-4abf-99bc-5f623226a739")
ATTESTATION: Final = UUID("39800861-182a-4720-9b67-2bcd622bc0b5")
MP_SIGN: Final = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51c")
"""NXP's xtest TA."""
PSEUDO_TAS: Final = {"mp": MP, "ocotp": OCOTP, "digprog": DIGPROG, "attestation": ATTESTATION}
NAMES: Final = {uuid: name for name, uuid in PSEUDO_TAS.items()}
_POLL_S: Final = 0.02


class Gone(Exception):
    """Who asked died before the answer."""


@dataclass
class Session:
    """One open session."""

    uuid: UUID
    dead: bool = False
    """The application panicked: every later command is TARGET_DEAD."""


Gaze = Callable[[], bool]
"""Whether the one who asked is gone."""


class World:
    """OP-TEE from power-on to power-off, over the chip in a folder."""

    def __init__(self, chip: Path, scenario: Path, asked: list[tuple[UUID, int]]) -> None:
        """`asked` takes each command with its application, whatever comes of it."""
        self._asked = asked
        self._chip = chip
        self._scenario = scenario
        self._keys = KeyStore(chip)
        self._sessions: dict[int, Session] = {}
        self._numbers = count(1)
        self._struck: Counter[Fault] = Counter()

    def read_scenario(self) -> Scenario:
        """As the file says now. Raises BoardBroke."""
        return read_scenario(self._scenario)

    def has_session(self, number: int) -> bool:
        """Whether it is open."""
        return number in self._sessions

    def open(self, uuid: UUID, params: list[Param], gone: Gaze) -> int:
        """Number of the new session, never 0. Raises TeeRefusal, Gone."""
        scenario = self.read_scenario()
        self._strike(scenario, "open", uuid, None, gone)
        if len(params) > NUM_PARAMS:
            raise TeeRefusal(Result.BAD_PARAMETERS, Origin.TEE)
        if NAMES.get(uuid) not in scenario.built_in:
            self._wait_for_supplicant(gone)  # it is asked for every TA that is not built in
            scenario = self.read_scenario()
            if str(uuid) not in scenario.applications:
                raise TeeRefusal(Result.ITEM_NOT_FOUND, Origin.TEE)
        self._make(uuid, scenario, gone).open()
        number = next(self._numbers)
        self._sessions[number] = Session(uuid)
        return number

    def invoke(self, number: int, command: int, params: list[Param], gone: Gaze) -> None:
        """Raises TeeRefusal; what the application wrote before stays written. Raises Gone."""
        session, scenario = self._sessions[number], self.read_scenario()
        self._asked.append((session.uuid, command))
        if session.dead:
            raise TeeRefusal(Result.TARGET_DEAD, Origin.TEE)
        if len(params) > NUM_PARAMS:
            raise TeeRefusal(Result.BAD_PARAMETERS, Origin.TEE)
        application = self._make(session.uuid, scenario, gone)
        whole = params + [Param() for _ in range(NUM_PARAMS - len(params))]
        try:
            self._strike(scenario, "invoke", session.uuid, command, gone)
        except TeeRefusal as refusal:
            session.dead = refusal.result == Result.TARGET_DEAD
            application.spoil(command, whole)
            raise
        application.invoke(command, whole)

    def close(self, number: int) -> None:
        """Forget the session."""
        del self._sessions[number]

    def _make(self, uuid: UUID, scenario: Scenario, gone: Gaze) -> Application:
        chip = Chip(self._chip)
        if NAMES.get(uuid) not in scenario.built_in:
            return MpSignTa(MpPta(chip, scenario) if "mp" in scenario.built_in else None)
        if uuid == MP:
            return OldMpPta(chip, scenario) if scenario.abi == "old" else MpPta(chip, scenario)
        if uuid == OCOTP:
            return OcotpPta(chip)
        if uuid == DIGPROG:
            return DigprogPta(chip)
        return AttestationPta(self._keys, scenario, lambda: self._wait_for_supplicant(gone))

    def _strike(self, scenario: Scenario, call: str, uuid: UUID, command: int | None, gone: Gaze) -> None:
        for fault in scenario.faults:
            meant = fault.call == call and fault.uuid in (None, str(uuid)) and fault.command in (None, command)
            if not meant or (fault.times is not None and self._struck[fault] >= fault.times):
                continue
            self._struck[fault] += 1
            if fault.result == HANG:
                while not gone():
                    time.sleep(_POLL_S)
                raise Gone
            raise TeeRefusal(fault.read_result(), Origin(fault.origin))

    def _wait_for_supplicant(self, gone: Gaze) -> None:
        """Without a timeout, as the kernel's optee driver waits (drivers/tee/optee/supp.c)."""
        while not self.read_scenario().supplicant:
            if gone():
                raise Gone
            time.sleep(_POLL_S)
