"""The units as systemd itself reads them: clean, tight, and of one mind with the exit codes and the documents."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from mpagent.hal.soc.parts import LAYOUTS
from tests.mpagent.conftest import AS_ROOT
from tests.walls.test_exit_codes import TABLE

from .conftest import SYSTEM, UNITS

INSTANCES: Final = {
    "mpagent.service": "mpagent.service",
    "mpagent-provisioned.target": "mpagent-provisioned.target",
    "mpagent-credentials.socket": "mpagent-credentials.socket",
    "mpagent-credentials.service": "mpagent-credentials.service",
    "mpagent-finish.service": "mpagent-finish.service",
    "mpagent-fetch.socket": "mpagent-fetch.socket",
    "mpagent-fetch@.service": "mpagent-fetch@1.service",
    "mpagent-face@.service": "mpagent-face@ttymxc0.service",
    "mpagent-leds.service": "mpagent-leds.service",
}
"""Each unit file and what is started of it."""
EXPOSURE_MAX: Final = {
    "mpagent.service": 1.7,
    "mpagent-credentials.service": 1.0,
    "mpagent-finish.service": 3.0,
    "mpagent-fetch@.service": 1.7,
    "mpagent-face@.service": 1.0,
    "mpagent-leds.service": 1.5,
}
"""By `systemd-analyze security`, 0 to 10; systemd's own daemons have 2 to 4."""
EXPOSURE: Final = re.compile(r"Overall exposure level for \S+: (\d+\.\d) ")


class Unit:
    """A unit file; a key that comes again adds its words."""

    def __init__(self, name: str) -> None:
        self._values: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in (UNITS / name).read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self._values.setdefault((section, key), []).append(value)

    def words(self, section: str, key: str) -> list[str]:
        return " ".join(self._values.get((section, key), [])).split()


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60)


def test_every_unit_is_under_test() -> None:
    assert {path.name for path in UNITS.glob("mpagent*")} == set(INSTANCES)
    assert {name for name in INSTANCES if name.endswith(".service")} == set(EXPOSURE_MAX)


@pytest.mark.parametrize("name", INSTANCES)
def test_systemd_has_nothing_to_say_against_the_unit(name: str, staged: Path) -> None:
    done = analyze("verify", f"--root={staged}", INSTANCES[name])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_unit_with_a_wrong_line_would_be_noticed(staged: Path) -> None:
    unit = staged / SYSTEM / "mpagent.service"
    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectClok=yes"))
    assert "ProtectClok" in analyze("verify", f"--root={staged}", "mpagent.service").stderr


@pytest.mark.parametrize("name", EXPOSURE_MAX)
def test_the_unit_is_as_tight_as_promised(name: str) -> None:
    done = analyze("security", "--offline=true", str(UNITS / name))
    found = EXPOSURE.search(done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX[name], done.stdout


@pytest.mark.parametrize("name", ["mpagent.service", "mpagent-credentials.service", "mpagent-finish.service"])
def test_systemd_starts_again_after_the_exit_codes_that_may_heal(name: str) -> None:
    unit = Unit(name)
    final = {code for code, (_, again) in TABLE.items() if not again} - {0}
    assert {int(word) for word in unit.words("Service", "RestartPreventExitStatus")} == final == {64, 65, 77, 78}
    assert unit.words("Service", "Restart") == ["on-failure"]
    assert unit.words("Unit", "StartLimitIntervalSec") == ["0"], "a limit would stop what the exit code lets go on"


def test_the_target_is_reached_by_ready_alone() -> None:
    """T-501 Cloned disk, P12: no file decides, for a copied disk has it too; each start of the service tries again."""
    target, service = Unit("mpagent-provisioned.target"), Unit("mpagent.service")
    assert target.words("Unit", "Requires") == target.words("Unit", "After") == ["mpagent.service"]
    assert service.words("Unit", "Wants") == service.words("Unit", "Before") == ["mpagent-provisioned.target"]
    assert service.words("Service", "Type") == ["notify"]
    assert service.words("Service", "NotifyAccess") == ["main"]
    for name in ("mpagent-provisioned.target", "mpagent.service", "mpagent-finish.service"):
        assert "Condition" not in re.sub("(?m)^#.*$", "", (UNITS / name).read_text())


def test_the_agent_does_not_wait_for_the_network_to_start() -> None:
    assert "network" not in " ".join(Unit("mpagent.service").words("Unit", "After"))


@pytest.mark.parametrize("name", ["mpagent-credentials.service", "mpagent-finish.service", "mpagent-face@.service"])
def test_who_needs_no_network_has_none(name: str) -> None:
    unit = Unit(name)
    assert unit.words("Service", "PrivateNetwork") == ["yes"]
    assert not {"AF_INET", "AF_INET6", "AF_PACKET"} & set(unit.words("Service", "RestrictAddressFamilies"))


@pytest.mark.parametrize("name", ["mpagent.service", "mpagent-credentials.service"])
def test_who_holds_secrets_may_lock_memory_and_leaves_no_core(name: str) -> None:
    """P8; mpwire/guard.py asks the kernel for both."""
    unit = Unit(name)
    assert unit.words("Service", "LimitMEMLOCK") == ["infinity"]
    assert unit.words("Service", "LimitCORE") == ["0"]
    assert unit.words("Service", "CapabilityBoundingSet") == []


def test_the_fuse_file_of_every_part_is_given_to_its_group_for_reading() -> None:
    lines = [line.split() for line in (UNITS / "tmpfiles.d/mpagent.conf").read_text().splitlines()]
    fuses = {line[1]: line[2:5] for line in lines if line and line[0] == "z"}
    patterns = {pattern for layout in LAYOUTS.values() for pattern in layout.fuse_files}
    assert set(fuses) == {f"/sys/bus/nvmem/devices/{pattern}/nvmem" for pattern in patterns}
    assert {tuple(one) for one in fuses.values()} == {("0440", "root", "mpagent-fuses")}


def test_every_user_and_group_that_a_unit_names_is_made() -> None:
    made = {
        line.split()[1] for line in (UNITS / "sysusers.d/mpagent.conf").read_text().splitlines() if line[:1] in "ug"
    }
    named = {
        word
        for name in EXPOSURE_MAX
        for key in ("User", "Group", "SupplementaryGroups")
        for word in Unit(name).words("Service", key)
    }
    tmpfiles = (UNITS / "tmpfiles.d/mpagent.conf").read_text()
    named |= {line.split()[4] for line in tmpfiles.splitlines() if line and not line.startswith("#")}
    assert named <= made | {"root"} and "mpagent-fuses" in named


def make(program: str, root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Another owner is given to folders, which root alone may do."""
    command = [*AS_ROOT, program, f"--root={root}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_makes_the_users_and_folders_in_a_root_of_our_own(tmp_path: Path) -> None:
    """The real systemd-sysusers and systemd-tmpfiles read our files."""
    (tmp_path / "etc").mkdir()
    users = make("systemd-sysusers", tmp_path, str(UNITS / "sysusers.d/mpagent.conf"))
    assert users.returncode == 0, users.stderr
    assert "mpagent:" in (tmp_path / "etc/passwd").read_text()
    groups = {line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert {"mpagent", "mpagent-fuses", "tee", "tss"} <= groups
    folders = make("systemd-tmpfiles", tmp_path, "--create", str(UNITS / "tmpfiles.d/mpagent.conf"))
    assert (folders.returncode, folders.stderr) == (0, "")
    assert (tmp_path / "var/lib/mpagent").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run/mpagent").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", [path.name for path in sorted((UNITS / "examples/mpagent.service.d").iterdir())])
def test_systemd_takes_each_drop_in_of_the_examples(name: str, staged: Path) -> None:
    folder = staged / "etc/systemd/system/mpagent.service.d"
    folder.mkdir(parents=True)
    (folder / name).write_text((UNITS / "examples/mpagent.service.d" / name).read_text())
    done = analyze("verify", f"--root={staged}", "mpagent.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
