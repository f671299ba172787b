"""The commands of docs/operate.md, "Installing on Debian 13", typed as they stand there."""

import re
from pathlib import Path

import pytest

from tests.deb.bench.conftest import lay
from tests.deb.trees import find_clean
from tests.walls.rooms import ROOT

SECTION = (ROOT / "docs" / "operate.md").read_text().split("\n## Installing on Debian 13\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
BOARD, SERVER = BLOCKS
ASSUME_YES = "echo 'APT::Get::Assume-Yes \"true\";' >/etc/apt/apt.conf.d/98yes"


def follow(commands: str, folder: Path, look: str) -> str:
    """What `look` shows after somebody typed the commands where the packages lie."""
    said = ""
    for layer in lay(find_clean(), folder):
        layer.shell(ASSUME_YES)
        layer.shell(f"cd /packages\n{commands}")
        said = layer.shell(look)
    return said


def test_a_board_is_ready_for_its_first_boot(tmp_path: Path) -> None:
    look = "find /etc/systemd/system -name 'mpagent*' -type l -printf '%P\\n' | sort"
    assert follow(BOARD, tmp_path / "board", look).split() == [
        "mpagent-provisioned.target.wants/mpagent-finish.service",
        "multi-user.target.wants/mpagent.service",
        "sockets.target.wants/mpagent-credentials.socket",
    ]


def test_a_server_is_set_up(tmp_path: Path) -> None:
    look = "ls /var/lib/mpserver/keys; cat /etc/default/mpserver"
    said = follow(SERVER, tmp_path / "server", look)
    assert "last-head" in said and "--host :: --port 8443" in said


@pytest.mark.parametrize("line", ["mpserver init --realm lab --name factory.example", "mpagent enroll --now"])
def test_a_line_that_cannot_be_typed_is_seen(line: str, tmp_path: Path) -> None:
    """By root, who may not; by anybody, for there is no such option."""
    with pytest.raises(AssertionError, match="ended with"):
        follow(f"apt-get install ./*.deb\n{line}", tmp_path / "wrong", "true")
