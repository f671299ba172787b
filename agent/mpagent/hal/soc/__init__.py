"""The backend `imx`: what an i.MX 8 or 9 says of itself, through the kernel and, where it answers, OP-TEE."""

from mpagent.hal.soc.fuses import Ocotp
from mpagent.hal.soc.identity import Identity, read_identity
from mpagent.hal.soc.imx import ImxSoc, Report, open_imx
from mpagent.hal.soc.lifecycle import Dialect, Witness, translate
from mpagent.hal.soc.pta import OpteeOcotp
from mpagent.hal.soc.witness import PinnedKeyWitness

__all__ = [
    "Dialect",
    "Identity",
    "ImxSoc",
    "Ocotp",
    "OpteeOcotp",
    "PinnedKeyWitness",
    "Report",
    "Witness",
    "open_imx",
    "read_identity",
    "translate",
]
