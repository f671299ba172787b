"""The parts of a run by bundles, out of a configured device."""

import os
from collections.abc import Callable, Sequence

from mpagent.compose import Device
from mpagent.hal.ports import Board
from mpagent.offline.apply import Tools
from mpagent.offline.jobsecrets import JobSecrets, Reader, from_credential, from_file
from mpagent.offline.pickup import Parts
from mpagent.ports import Journal
from mpagent.version import VERSION


def make_parts(
    device: Device, board: Board, journal: Journal, say: Callable[[str], None], secrets: Sequence[Reader]
) -> Parts:
    """`secrets` are asked before the settings' file and systemd's credential."""
    settings, readers = device.settings, list(secrets)
    if settings.job_secret_file is not None:
        readers.append(from_file(device.below(settings.job_secret_file), required=False))
    readers.append(from_credential())
    tools = Tools(board, device.vault(board), device.disk, device.image, JobSecrets(readers), os.urandom, VERSION, say)
    places = tuple(map(device.below, settings.bundle))
    receipts = None if settings.receipts is None else device.below(settings.receipts)
    return Parts(journal, device.latch, tools, places, receipts)
