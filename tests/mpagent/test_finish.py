"""After enrollment, on a real disk: encrypted, the production image on it, and nothing anybody else ordered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.power.processes import Mpserver

from .finish_bench import IMAGE, Bench, make_server, open_bench

ALL = 'luks = "{data}"\nluks_slot = "disk"\ninstaller = "raw"\ntarget = "{root}"\nstate = "{state}"\nafter = "reboot"\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpserver]:
    made = make_server(tmp_path_factory.mktemp("oem") / "oem")
    yield made
    made.stop()


@pytest.fixture
def bench(server: Mpserver) -> Iterator[Bench]:
    with open_bench(server) as made:
        made.set_finish(ALL)
        yield made


def test_a_board_encrypts_its_disk_installs_the_image_of_its_grant_and_reboots(bench: Bench, tmp_path: Path) -> None:
    bench.enroll()
    assert bench.mpagent("finish", "run", "--dry-run").stdout == "WOULD luks-format, install-image, reboot\n"
    assert bench.read(3, len(IMAGE)) == bytes(len(IMAGE)) and not bench.opens(bench.secret("disk"))

    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE luks-format, install-image, reboot\n"), done.stderr
    assert bench.read(3, len(IMAGE)) == IMAGE
    assert bench.opens(bench.secret("disk")) and not bench.opens(b"another key of 32 bytes........")
    assert bench.systemctl_calls() == ["--no-block reboot"]
