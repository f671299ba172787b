"""The server's package in a clean Debian 13: an issuer set up, asked over TLS, upgraded, purged."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.bench.conftest import INSTALL, install, lay
from tests.deb.layer import Layer

AS_SERVER = "runuser -u mpserver --"
INIT = f"{AS_SERVER} mpserver init --realm lab --name factory.example"
OURS = "find / -xdev -not -path '/packages*' \\( -user mpserver -o -name '*mpserver*' -o -name '*mpagent-server*' \\)"
STATE = "cd /var/lib/mpserver && find . -type f | sort | xargs sha256sum"
ASK = """python3 - <<'END'
import http.client, ssl
roots = ssl.create_default_context(cafile="/var/lib/mpserver/keys/tls.crt")
roots.check_hostname = False
roots.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
line = http.client.HTTPSConnection("127.0.0.1", 8443, context=roots)
line.request("POST", "/", body=b"not CBOR")
print("answered", line.getresponse().status)
END"""


@pytest.fixture(scope="module")
def once_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layer]:
    yield from install("mpagent-server", tmp_path_factory.mktemp("installed"))


@pytest.fixture
def installed(once_installed: Layer, tmp_path: Path) -> Iterator[Layer]:
    yield from lay(once_installed, tmp_path / "layer")


def test_installing_makes_no_issuer_and_says_how(once_installed: Layer, installed: Layer) -> None:
    said = (once_installed.path("packages") / "said").read_text()
    assert "runuser -u mpserver -- mpserver init --realm lab --name HOST" in said
    assert installed.shell("ls -A /var/lib/mpserver") == ""
    assert installed.shell("stat -c '%U:%G %a' /var/lib/mpserver").strip() == "mpserver:mpserver 700"
    installed.shell(f"{AS_SERVER} mpserver doctor", status=78)


def test_its_modules_are_nobody_elses(installed: Layer) -> None:
    """The device's rooms are not there, and no other program of the machine can import the server's."""
    assert installed.shell("ls /usr/lib/mpagent-server | grep -v dist-info").split() == [
        "granian",
        "mpissuer",
        "mpserver",
        "mpwire",
        "re2",
    ]
    for module in ("mpserver", "granian", "mpwire", "mpagent", "re2"):
        installed.run("python3", "-c", f"import {module}", status=1)
    assert re.fullmatch(r"mpserver \d+\.\d+\.\d+\n", installed.shell("mpserver --version"))


def test_an_issuer_is_set_up_and_served(installed: Layer) -> None:
    """By the very line that the unit starts, as its user: TLS by the vendored server, an answer, and a clean stop."""
    installed.shell(INIT)
    found = json.loads(installed.shell(f"{AS_SERVER} mpserver doctor --json"))
    assert [line for line in found if line["ok"] is False] == []
    script = f"""
. /etc/default/mpserver
{AS_SERVER} mpserver run $MPSERVER_OPTIONS --ready-file /var/lib/mpserver/ready &
until [ -e /var/lib/mpserver/ready ]; do sleep 0.1; done
{ASK}
kill -TERM $(pidof -x mpserver)
wait
"""
    said = installed.shell(script)
    assert re.search(r"^answered [234]\d\d$", said, re.MULTILINE)
    assert '"stopped"' in said


def test_root_makes_nothing_that_the_server_cannot_read(installed: Layer) -> None:
    """T-573 A job key of root's would have every board of the job refused, and the doctor saw nothing."""
    installed.shell(INIT)
    before = installed.shell(STATE)
    said = installed.shell("mpserver job create lot-1 --product camera --quota 2", status=77)
    assert "runuser -u mpserver -- mpserver job create lot-1" in said
    assert installed.shell(STATE) == before
    installed.shell("mpserver --version && mpserver completion bash && mpserver job --help")
    installed.shell("mpserver --dir /var/tmp/lab init --realm lab && mpserver doctor --dir=/var/tmp/lab")


def test_the_unit_verifies(installed: Layer) -> None:
    assert installed.run("systemd-analyze", "verify", "--man=no", "mpserver.service") == ""


def test_the_unit_waits_for_the_keys_and_serves_in_its_sandbox(installed: Layer) -> None:
    """Under the real service manager: passed over before `init`, up at the next boot, and stopped in order."""
    show = "systemctl show mpserver.service --property=ActiveState,ConditionResult,ExecMainStatus,User,NRestarts"
    before = installed.boot(show)
    assert {"ActiveState=inactive", "ConditionResult=no"} <= set(before.split())
    installed.shell(INIT)
    said = installed.boot(f"""
for _ in $(seq 300); do journalctl -q -u mpserver.service | grep -q listening && break; sleep 0.1; done
{show}
{ASK}
{AS_SERVER} mpserver doctor --json
systemctl stop mpserver.service
{show}
journalctl -q -o cat -u mpserver.service
""")
    assert re.search(r"^answered [234]\d\d$", said, re.MULTILINE), said
    assert said.index("ActiveState=active") < said.index("ActiveState=inactive"), said
    assert "NRestarts=0" in said and "ExecMainStatus=0" in said and '"stopped"' in said, said


def test_the_unit_is_shut_in(installed: Layer) -> None:
    said = installed.shell("systemd-analyze security --offline=true --threshold=20 mpserver.service --no-pager")
    level = re.search(r"Overall exposure level for mpserver.service: (\d+\.\d)", said)
    assert level is not None and float(level[1]) <= 1.7


def test_an_upgrade_keeps_issuer_and_settings(installed: Layer) -> None:
    installed.shell(INIT)
    installed.shell("echo 'MPSERVER_OPTIONS=\"--host ::\"' >/etc/default/mpserver")
    before = installed.shell(STATE)
    again = installed.shell(f"{INSTALL} --reinstall -o Dpkg::Options::=--force-confdef /packages/mpagent-server_*.deb")
    assert "mpserver init" not in again
    assert installed.shell(STATE) == before
    assert "::" in installed.shell("cat /etc/default/mpserver")


def test_purge_never_takes_the_keys_of_an_issuer(installed: Layer) -> None:
    """T-570 Every image in the field believes these keys."""
    installed.shell(INIT)
    before = installed.shell(STATE)
    said = installed.shell("apt-get -q --yes purge mpagent-server")
    assert "keys and ledger stay in /var/lib/mpserver" in said
    assert installed.shell(STATE) == before
    installed.shell("test ! -e /etc/default/mpserver && test ! -e /usr/lib/mpagent-server")
    installed.shell(f"{INSTALL} /packages/mpagent-server_*.deb")
    assert installed.shell(f"{AS_SERVER} mpserver doctor").startswith("ok")
    assert installed.shell(STATE) == before


def test_purge_of_a_server_never_set_up_leaves_its_user_alone(installed: Layer) -> None:
    assert len(installed.shell(OURS).split()) > 5
    installed.shell("apt-get -q --yes purge mpagent-server")
    assert installed.shell(OURS) == ""
    installed.run("getent", "passwd", "mpserver")


def test_both_packages_stand_beside_one_another(installed: Layer) -> None:
    """On a bench the same machine plays both sides."""
    installed.shell(f"{INSTALL} /packages/mpagent_*.deb")
    assert installed.shell("mpagent --version; mpserver --version").count("\n") == 2
