"""Where bundles, receipts and a job secret lie, for an image that is provisioned by bundles."""

import os
from collections.abc import Iterator
from typing import Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State
from mpagent.checkup.question import Question
from mpagent.compose import Device
from mpagent.errors import BundleBroke, ConfigWrong, NoBundle
from mpagent.record import FINISHED

_PUT: Final = "put the bundle there; mpagent.toml says where it is looked for"


def ask_offline(desk: Desk) -> Iterator[Question]:
    """Manifests are read, and nothing of a bundle is checked or opened: `mpagent offline apply --dry-run` does that."""
    device = desk.device
    if device is None or device.image.mp_use != "secret":
        return
    yield Question("bundle place", lambda: _look_at_places(device))
    yield Question("receipts", lambda: _look_at_receipts(device))
    yield Question("job secret", lambda: _look_at_secret(device))


def _look_at_places(device: Device) -> Finding:
    from mpagent.offline.sources import list_bundles, open_bundle

    needed = device.journal(lambda _text: None).peek()[0].stage not in FINISHED
    places = tuple(map(device.below, device.settings.bundle))
    if not places:
        text, following = "none is set; `mpagent offline apply` needs none", 'write bundle = "/PATH" in mpagent.toml'
        if needed:
            return Finding("bundle place", State.BROKEN, text, following, ConfigWrong.exit_code)
        return Finding("bundle place", State.NOTE, text)
    told, broken = list[str](), list[str]()
    for path in list_bundles(places):
        try:
            with open_bundle(path) as source:
                told.append(f"{path}: {source.frame.bundle.authority} version {source.frame.bundle.version}")
        except NoBundle:
            continue
        except BundleBroke as error:
            broken.append(f"{path}: {error}")
    text = "; ".join((*told, *broken)) or f"nothing yet at {', '.join(map(str, places))}"
    if told:
        return Finding("bundle place", State.OK, text)
    code = NoBundle.exit_code if needed else 0
    return Finding("bundle place", State.MISSING if needed else State.NOTE, text, _PUT if needed else "", code)


def _look_at_receipts(device: Device) -> Finding:
    folder = device.settings.receipts
    if folder is None:
        text = "no folder is set: they stay on the board"
        return Finding("receipts", State.NOTE, text, 'write receipts = "/FOLDER" in mpagent.toml')
    place = device.below(folder)
    if not place.is_dir() or not os.access(place, os.W_OK):
        trouble = "takes no new file" if place.is_dir() else "is not there"
        return Finding("receipts", State.NOTE, f"{place} {trouble}: they stay on the board until it does")
    return Finding("receipts", State.OK, f"go to {place}")


def _look_at_secret(device: Device) -> Finding:
    """Whether one can be had, and is whole; whose it is, only a bundle tells. Raises Mistyped, MediumBroke."""
    from mpagent.offline.jobsecrets import from_credential, from_file

    path = device.settings.job_secret_file
    readers = [] if path is None else [("mpagent.toml names", from_file(device.below(path), required=False))]
    for source, reader in (*readers, ("systemd gives", from_credential())):
        for _ in reader():
            return Finding("job secret", State.OK, f"{source} one, and it is whole")
    return Finding("job secret", State.NOTE, "none; only a bundle that says so needs one")
