"""What one fresh process costs: `python -I -S meter.py COMMAND...` runs it and prints one JSON object.

A process of its own and small: the kernel counts what a process was before exec into its peak, too.
"""

import json
import os
import sys
import time


def main() -> None:
    """Standard output of the command is thrown away, its errors pass."""
    out = os.open(os.devnull, os.O_WRONLY)
    start = time.monotonic()
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])
    _, status, usage = os.wait4(child, 0)
    print(
        json.dumps(
            {
                "exit": os.waitstatus_to_exitcode(status),
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "wall_s": time.monotonic() - start,
                "peak_mib": usage.ru_maxrss / 1024,
                "blocks_out": usage.ru_oublock,
            }
        )
    )


main()
