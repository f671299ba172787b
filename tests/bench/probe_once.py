"""`python probe_once.py JSON`: a fresh process asks a board for every part it is told to, and prints one JSON object.

The clock is CPU time, ours and that of the children that carry calls to OP-TEE. An emulated chip works in processes of
its own, so its time is not in it.
"""

import json
import resource
import sys
from pathlib import Path
from time import monotonic
from uuid import UUID

from mpagent.durable import Disk
from mpagent.errors import HardwareAbsent
from mpagent.hal.choose import BoardChoice, CardWanted, TokenChoice, open_bench, open_part
from mpagent.shelf import DiskShelf


def spent_s() -> float:
    """CPU seconds of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Open, in the order given, each [sort, name]; an absent part is an answer like any other."""
    told = json.loads(sys.argv[1])
    token = told.get("token")
    choice = BoardChoice(
        *((),) * 4,
        tpm_tcti=told.get("tpm_tcti"),
        optee_node=Path(told["optee_node"]),
        relay_tas=tuple(UUID(one) for one in told.get("relay_tas", ())),
        card=CardWanted(Path(told["card_pin"])),
        token=None if token is None else TokenChoice(Path(token[0]), token[1], Path(token[2])),
    )
    disk = Disk(Path(told["state"]))
    disk.prepare()
    found, began_s, cpu_s = {}, monotonic(), spent_s()
    with open_bench(choice, Path(told["root"]), DiskShelf(disk)) as bench:
        for sort, name in told["parts"]:
            try:
                open_part(bench, sort, name)
                found[f"{sort} {name}"] = "there"
            except HardwareAbsent:
                found[f"{sort} {name}"] = "absent"
        wall_s, probe_s = monotonic() - began_s, spent_s() - cpu_s
    # Of this program alone: ru_maxrss would count what the process was before exec.
    peak = int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"found": found, "wall_s": wall_s, "probe_s": probe_s, "whole_s": spent_s(), "peak_mib": peak}))


main()
