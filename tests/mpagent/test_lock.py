"""Two mpagents on one state folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from mpagent import lock
from mpagent.errors import Busy

HOLD = """
import sys
from pathlib import Path
from mpagent import lock
with lock.hold(Path(sys.argv[1]), "enroll"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_one_says_who_holds_the_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    words = f"process {holder.pid} (mpagent enroll)"
    assert lock.read_holder(tmp_path) == words
    with pytest.raises(Busy) as found, lock.hold(tmp_path, "enroll"):
        pytest.fail("two held it")
    assert words in str(found.value) and found.value.exit_code == 75

    holder.kill()  # even so the kernel lets go
    holder.communicate()
    assert lock.read_holder(tmp_path) is None
    with lock.hold(tmp_path, "enroll"):
        pass


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert lock.read_holder(tmp_path / "missing") is None
