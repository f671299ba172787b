"""The device's package in a clean Debian 13: installed, used, upgraded, removed, purged."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.bench.conftest import INSTALL, install, lay
from tests.deb.layer import Layer
from tests.walls.rooms import ROOT

UNITS = sorted(path.name for path in (ROOT / "systemd").glob("mpagent*.*"))
OURS = (
    "find / -xdev -not -path '/packages*' \\( -user mpagent -o -group mpagent -o -name '*mpagent*' -o -name mpwire \\)"
)
MODULES = """
import importlib, pkgutil, sys, mpagent, mpwire
for room in (mpagent, mpwire):
    for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(len([name for name in sys.modules if name.startswith("mp")]))
"""


@pytest.fixture(scope="module")
def once_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layer]:
    yield from install("mpagent", tmp_path_factory.mktemp("installed"))


@pytest.fixture
def installed(once_installed: Layer, tmp_path: Path) -> Iterator[Layer]:
    yield from lay(once_installed, tmp_path / "layer")


def test_it_runs_on_what_it_depends_on(installed: Layer) -> None:
    """No network and no pip: apt's own packages alone, and the recommended one is not there."""
    assert installed.shell("mpagent --version").startswith("mpagent ")
    installed.run("python3", "-I", "-c", "import mpagent.transport, mpagent.enrollment, mpagent.vault")
    installed.run("python3", "-I", "-c", "import tpm2_pytss", status=1)


def test_every_module_imports_beside_packaged_hardware_libraries(installed: Layer) -> None:
    """Debian 13 has older releases of them than the tests here have."""
    installed.shell(f"{INSTALL} python3-tpm2-pytss python3-pkcs11 python3-pyscard")
    installed.run("python3", "-I", "-c", "import tpm2_pytss, pkcs11, smartcard.System")
    assert int(installed.run("python3", "-I", "-c", MODULES)) > 100


def test_no_variable_of_the_caller_adds_code(installed: Layer) -> None:
    """T-572 Whoever may set a variable of a root's command line puts modules of his own before ours."""
    trap = "mkdir /tmp/trap && echo 'raise SystemExit(99)' >/tmp/trap/mpagent.py && cd /tmp/trap"
    assert installed.shell(f"{trap} && PYTHONPATH=/tmp/trap mpagent --version").startswith("mpagent ")
    installed.shell(f"{trap} && PYTHONPATH=/tmp/trap python3 -m mpagent", status=99)


def test_a_machine_without_an_image_is_told_so(installed: Layer) -> None:
    """78 of docs/operate.md, a list that a program reads, and nothing made on the state partition."""
    found = json.loads(installed.run("mpagent", "doctor", "--json", status=78))
    assert {line["ability"]: line["exit_code"] for line in found}["image"] == 78
    assert installed.shell("ls -A /var/lib/mpagent") == ""


def test_nothing_starts_because_it_was_installed(installed: Layer) -> None:
    """Not at once, and not on the first boot of an image without a machine-id, which enables what presets let it."""
    for _ in range(2):
        listed = installed.shell("systemctl list-unit-files --no-legend 'mpagent*'")
        states = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
        assert states.keys() == set(UNITS)
        assert set(states.values()) == {"disabled", "static"}
        installed.shell("systemctl preset-all --preset-mode=enable-only")


def test_units_verify_and_can_be_enabled(installed: Layer) -> None:
    started = [name.replace("@.", "@tty1.") for name in UNITS]
    assert installed.run("systemd-analyze", "verify", "--man=no", *started) == ""
    installed.run("systemctl", "enable", "mpagent.service", "mpagent-credentials.socket")
    assert "mpagent.service" in installed.shell("ls /etc/systemd/system/multi-user.target.wants")


def test_a_machine_without_an_image_does_not_pass(installed: Layer) -> None:
    """Under Debian 13's own service manager: the configuration's exit code, no second try, and the target unreached."""
    installed.shell("systemctl enable mpagent.service mpagent-credentials.socket")
    show = "systemctl show mpagent.service --property=ActiveState,ExecMainStatus,NRestarts"
    said = installed.boot(f"""
for _ in $(seq 300); do {show} | grep -q ActiveState=failed && break; sleep 0.1; done
{show}
systemctl is-active mpagent-credentials.socket
systemctl is-active mpagent-provisioned.target || true
""").split()
    assert said == ["NRestarts=0", "ExecMainStatus=78", "ActiveState=failed", "active", "inactive"]


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
    """T-571 Device keys that vanish with a package would make this board a clone in the server's eyes."""
    installed.shell("echo kept >/var/lib/mpagent/shelf-key")
    said = installed.shell("apt-get -q --yes purge mpagent")
    assert "stay in /var/lib/mpagent" in said
    assert installed.shell("cat /var/lib/mpagent/shelf-key") == "kept\n"


def test_purge_of_a_board_that_kept_nothing_leaves_its_user_alone(installed: Layer) -> None:
    assert len(installed.shell(OURS).split()) > 20
    installed.shell("apt-get -q --yes purge mpagent")
    assert installed.shell(OURS) == ""
    installed.run("getent", "passwd", "mpagent")
