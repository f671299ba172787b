"""The device's package in a clean Debian 13: installed, used, upgraded, removed, purged."""

import json
import re

import pytest

from tests.deb.bench.conftest import INSTALL
from tests.deb.layer import Layer
from tests.walls.rooms import ROOT

UNITS = sorted(path.name for path in (ROOT / "systemd").glob("mpagent*.*"))
FILES = "find / -xdev -not -path '/proc/*' -not -path '/packages*' | sort"


@pytest.fixture
def installed(clean: Layer) -> Layer:
    clean.shell(f"{INSTALL} systemd")
    clean.shell(f"{INSTALL} /packages/mpagent_*.deb")
    return clean


def test_it_stands_on_packaged_libraries_alone(installed: Layer) -> None:
    """No network and no pip: what apt put there imports, and no folder of the caller's is among the module paths."""
    assert installed.shell("mpagent --version").startswith("mpagent ")
    modules = "import mpagent.transport, mpagent.enrollment, mpagent.vault, mpagent.commands.doctor"
    installed.run("python3", "-I", "-c", modules)
    trap = "mkdir /tmp/trap && echo 'raise SystemExit(99)' >/tmp/trap/mpagent.py && cd /tmp/trap"
    assert installed.shell(f"{trap} && PYTHONPATH=/tmp/trap mpagent --version").startswith("mpagent ")


def test_a_machine_without_an_image_is_told_so(installed: Layer) -> None:
    """78 of docs/operate.md, a list that a program reads, and nothing made on the state partition."""
    found = json.loads(installed.run("mpagent", "doctor", "--json", status=78))
    assert {line["ability"]: line["exit_code"] for line in found}["image"] == 78
    assert installed.shell("ls -A /var/lib/mpagent") == ""


def test_nothing_starts_because_it_was_installed(installed: Layer) -> None:
    assert installed.shell("find /etc/systemd -name 'mpagent*'") == ""
    states = installed.shell("systemctl --root=/ list-unit-files --no-legend 'mpagent*'")
    assert {line.split()[0] for line in states.splitlines()} == set(UNITS)
    assert not re.search(r"\s(enabled|alias)\s", states.replace(" enabled\n", "\n"))


def test_units_verify_and_can_be_enabled(installed: Layer) -> None:
    started = [name.replace("@.", "@tty1.") for name in UNITS]
    assert installed.run("systemd-analyze", "verify", "--man=no", *started) == ""
    installed.run("systemctl", "--root=/", "enable", "mpagent.service", "mpagent-credentials.socket")
    assert "mpagent.service" in installed.shell("ls /etc/systemd/system/multi-user.target.wants")


def test_user_groups_and_folder_are_the_agents_own(installed: Layer) -> None:
    assert installed.shell("stat -c '%U:%G %a' /var/lib/mpagent").strip() == "mpagent:mpagent 700"
    assert "nologin" in installed.shell("getent passwd mpagent")
    for group in ("tss", "tee", "mpagent-fuses"):
        installed.run("getent", "group", group)


def test_bytecode_is_compiled_and_goes_with_the_package(installed: Layer) -> None:
    count = "find /usr/lib/python3/dist-packages -path '*mp*/__pycache__/*.pyc' | grep -c /mp"
    assert int(installed.shell(count)) > 50
    installed.shell("apt-get -q --yes remove mpagent")
    assert installed.shell("find /usr/lib/python3/dist-packages -maxdepth 1 -name 'mp*'") == ""


def test_the_shell_completes_commands(installed: Layer) -> None:
    script = """. /usr/share/bash-completion/completions/mpagent
COMP_WORDS=(mpagent enr); COMP_CWORD=1; _mpagent; echo "${COMPREPLY[*]}" """
    assert installed.run("bash", "-ec", script).strip() == "enroll"


def test_the_manual_names_every_command(installed: Layer) -> None:
    page = installed.shell("zcat /usr/share/man/man1/mpagent.1.gz").replace("\\-", "-")
    listed = re.search(r"commands=\((.*)\)|words=\"([^\"]*)\" ;;\n  esac", installed.shell("mpagent completion bash"))
    assert listed is not None
    commands = [word for word in (listed[2] or "").split() if not word.startswith("-")]
    assert "enroll" in commands
    assert [name for name in commands if f".SS mpagent {name}\n" not in page] == []


def test_an_upgrade_keeps_keys_and_secrets(installed: Layer) -> None:
    """Over itself, and to a version that is newer."""
    installed.shell("echo kept >/var/lib/mpagent/record-a && chown mpagent /var/lib/mpagent/record-a")
    installed.shell("echo 'server = \"https://here\"' >/etc/mpagent/mpagent.toml")
    installed.shell(f"{INSTALL} --reinstall /packages/mpagent_*.deb")
    installed.shell(
        "cd /var/tmp && dpkg-deb -R /packages/mpagent_*.deb newer && sed -i 's/^Version: .*/&+1/' newer/DEBIAN/control"
    )
    installed.shell(f"cd /var/tmp && dpkg-deb -b newer newer.deb && {INSTALL} ./newer.deb")
    assert installed.shell("dpkg-query -W -f '${Version}' mpagent").endswith("+1")
    assert (
        installed.shell("cat /var/lib/mpagent/record-a /etc/mpagent/mpagent.toml") == 'kept\nserver = "https://here"\n'
    )
    assert installed.shell("mpagent --version").startswith("mpagent ")


def test_purge_keeps_the_board_and_says_so(installed: Layer) -> None:
    """Device keys that vanish with a package would make this board a clone in the server's eyes."""
    installed.shell("echo kept >/var/lib/mpagent/shelf-key")
    said = installed.shell("apt-get -q --yes purge mpagent")
    assert "stay in /var/lib/mpagent" in said
    assert installed.shell("cat /var/lib/mpagent/shelf-key") == "kept\n"


def test_purge_of_a_board_that_kept_nothing_leaves_its_user_alone(clean: Layer) -> None:
    clean.shell(f"{INSTALL} systemd python3-requests python3-urllib3 python3-cryptography")
    before = clean.shell(FILES)
    clean.shell(f"{INSTALL} /packages/mpagent_*.deb")
    clean.shell("apt-get -q --yes purge mpagent")
    left = set(clean.shell(FILES).splitlines()) - set(before.splitlines())
    assert {path for path in left if not re.match(r"/var/(lib/(dpkg|apt)|log|cache)/|/etc/.*-$", path)} == set()
    clean.run("getent", "passwd", "mpagent")
