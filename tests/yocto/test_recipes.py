"""What the recipes say of us is what we are: files, users, groups, libraries, licence, kernel options."""

import ast
import fnmatch
import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from mpagent.hal.caam.kernel_config import list_options, read_fragment
from mpagent.version import VERSION
from tests.walls.rooms import ROOT
from tests.walls.test_wheels import build, export

from .recipes import LAYER, RECIPE, TPM_APPEND, Recipe, function, metadata

KERNEL: Final = LAYER / "dynamic-layers/freescale-layer/recipes-kernel/linux"
OPTEE: Final = LAYER / "dynamic-layers/freescale-layer/recipes-security/optee-imx"
SITE: Final = "usr/lib/python3/site-packages"
PLACES: Final = {
    "${PYTHON_SITEPACKAGES_DIR}": SITE,
    "${bindir}": "usr/bin",
    "${nonarch_libdir}": "usr/lib",
    "${systemd_system_unitdir}": "usr/lib/systemd/system",
    "${localstatedir}": "var",
    "${PV}": VERSION,
}
PACKAGED: Final = {
    "compression": {"gzip"},
    "crypt": {"hashlib"},
    "ctypes": {"ctypes"},
    "datetime": {"datetime"},
    "difflib": {"difflib"},
    "email": {"email"},
    "fcntl": {"fcntl"},
    "io": {"socket", "ssl", "termios"},
    "json": {"json"},
    "logging": {"logging"},
    "math": {"random", "math"},
    "mmap": {"mmap"},
    "multiprocessing": {"multiprocessing"},
    "netclient": {"hmac", "http", "secrets", "urllib", "uuid"},
    "pickle": {"pickle"},
    "pprint": {"pprint"},
    "resource": {"resource"},
    "sqlite3": {"sqlite3"},
    "syslog": {"syslog"},
    "terminal": {"tty", "pty"},
    "threading": {"threading", "queue", "concurrent"},
    "tomllib": {"tomllib"},
    "unixadmin": {"crypt", "getpass", "pwd", "grp"},
    "xml": {"xml"},
    "zoneinfo": {"zoneinfo"},
}
"""Modules outside python3-core, by package: python3-manifest.json of oe-core, the same in scarthgap and wrynose."""
UNITS: Final = {path.name: path for path in (ROOT / "systemd").glob("mpagent*.*")} | {
    path.name: path for path in (LAYER / "recipes-mpagent/mpagent/files").glob("*.mount")
}
CORE: Final = {
    "__future__", "argparse", "array", "base64", "binascii", "collections", "contextlib", "copy", "enum", "errno",
    "functools", "gc", "importlib", "io", "itertools", "marshal", "os", "pathlib", "platform", "re", "select",
    "selectors", "shutil", "signal", "stat", "string", "struct", "subprocess", "sys", "tempfile", "textwrap",
    "time", "traceback", "types", "typing", "warnings", "weakref", "zlib",
}  # fmt: skip


def place(pattern: str) -> str:
    for variable, folder in PLACES.items():
        pattern = pattern.replace(variable, folder)
    return pattern


def owners(path: str, recipe: Recipe) -> list[str]:
    """Packages whose FILES name this file, or a folder above it."""
    return [
        name.removeprefix("FILES:${PN}")
        for name, value in recipe.values.items()
        if name.startswith("FILES:")
        for pattern in map(place, value.split())
        if fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}/")
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Entries of the wheel, built from the committed tree."""
    folder = tmp_path_factory.mktemp("wheel")
    export(folder / "tree")
    return build(folder / "tree", folder / "built")


def installed(wheel: list[str]) -> list[str]:
    """Where an installation puts them, its program and our own files."""
    recipe = [f"{SITE}/{entry}" for entry in wheel] + ["usr/bin/mpagent"]
    recipe += [f"usr/lib/{kind}.d/mpagent.conf" for kind in ("sysusers", "tmpfiles")]
    recipe += [f"usr/lib/systemd/system/{name}" for name in UNITS]
    return [*recipe, "var/lib/mpagent"]


def test_every_file_of_wheel_and_units_lies_in_one_package(wheel: list[str]) -> None:
    recipe, files = Recipe(RECIPE), installed(wheel)
    assert len(files) > 100
    assert {path: found for path in files if len(found := owners(path, recipe)) != 1} == {}


def test_no_package_names_a_file_that_is_not_there(wheel: list[str]) -> None:
    files = installed(wheel)
    patterns = [
        place(word)
        for name, value in Recipe(RECIPE).values.items()
        if name.startswith("FILES:")
        for word in value.split()
    ]
    unmatched = [one for one in patterns if not any(path == one or path.startswith(f"{one}/") for path in files)]
    assert patterns
    assert unmatched == []


def test_a_file_that_nobody_packages_would_be_noticed() -> None:
    assert owners(f"{SITE}/mpsim/__init__.py", Recipe(RECIPE)) == []


def test_every_unit_that_is_enabled_is_packaged_with_its_package() -> None:
    recipe = Recipe(RECIPE)
    for package in recipe.words("SYSTEMD_PACKAGES"):
        for unit in recipe.words(f"SYSTEMD_SERVICE:{package}"):
            file = re.sub(r"@[^.]*\.", "@.", unit.replace("${MPAGENT_FACE_TTY}", "tty1"))
            assert "[Install]" in UNITS[file].read_text(), f"{file} cannot be enabled"
            assert owners(f"usr/lib/systemd/system/{file}", recipe) == [package.removeprefix("${PN}")]


def test_the_version_is_the_agents() -> None:
    assert RECIPE.name == f"mpagent_{VERSION}.bb"


def test_the_licence_is_the_one_in_the_checkout() -> None:
    digest = hashlib.md5((ROOT / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    assert Recipe(RECIPE).values["LIC_FILES_CHKSUM"] == f"file://LICENSE;md5={digest}"


def test_source_and_tag_stand_in_one_variable_each() -> None:
    text, recipe = RECIPE.read_text(), Recipe(RECIPE)
    assert recipe.values["SRCREV"] == "${MPAGENT_TAG}"
    assert recipe.values["MPAGENT_TAG"] == "v${PV}"
    assert "git://${MPAGENT_GIT};" in recipe.values["SRC_URI"]
    assert len(re.findall(r"^MPAGENT_(?:GIT|TAG) \?=", text, re.MULTILINE)) == 2
    assert len(re.findall(r"example\.com/mpagent\.git", "".join(path.read_text() for path in metadata()))) == 1


def test_readme_explains_every_variable_of_ours() -> None:
    used = {
        name for path in metadata() for name in re.findall(r"^(MPAGENT_[A-Z_]+) \?=", path.read_text(), re.MULTILINE)
    }
    readme = (LAYER / "README.md").read_text()
    assert used >= {"MPAGENT_GIT", "MPAGENT_TAG", "MPAGENT_SITE"}
    assert {name for name in used if f"`{name}`" not in readme} == set()


def test_users_and_groups_are_those_of_sysusers() -> None:
    recipe = Recipe(RECIPE)
    groups = {
        line.split()[-1]
        for line in recipe.values["GROUPADD_PARAM:${PN}"].replace("${MPAGENT_TEE_GROUP}", "tee").split(";")
    }
    told = [
        line.split('"')
        for line in (ROOT / "systemd/sysusers.d/mpagent.conf").read_text().splitlines()
        if line[:1] in "ug"
    ]
    users = [parts for parts in told if parts[0].startswith("u ")]
    assert {parts[0].split()[1] for parts in told} == groups
    ((name, comment, rest),) = users
    added = recipe.values["USERADD_PARAM:${PN}"].replace("${localstatedir}", "/var").replace("${sbindir}", "/usr/sbin")
    home, shell = rest.split()
    assert (
        added.split()
        == (
            f"--system -g mpagent --no-create-home --home-dir {home} --shell {shell}"
            f" --comment '{comment}' {name.split()[1]}"
        ).split()
    )


def test_the_group_of_the_tee_is_changed_in_every_unit_and_nowhere_else(tmp_path: Path) -> None:
    """On scarthgap /dev/tee0 belongs to teeclnt, and "tee" is the supplicant's side."""
    unit, users = tmp_path / "systemd", tmp_path / "lib"
    (users / "sysusers.d").mkdir(parents=True)
    unit.mkdir()
    before = {path.name: path.read_text() for path in (ROOT / "systemd").glob("mpagent*.service")}
    for name, text in before.items():
        (unit / name).write_text(text)
    (users / "sysusers.d/mpagent.conf").write_text((ROOT / "systemd/sysusers.d/mpagent.conf").read_text())
    script = "\n".join(
        line for line in function(RECIPE, "do_install:append()").splitlines() if line.strip().startswith("sed")
    )
    for variable, value in (("${D}", ""), ("${systemd_system_unitdir}", str(unit)), ("${nonarch_libdir}", str(users))):
        script = script.replace(variable, value)
    subprocess.run(["sh", "-euc", script.replace("${MPAGENT_TEE_GROUP}", "teeclnt")], check=True, timeout=20)

    changed = {path.name for path in unit.iterdir() if path.read_text() != before[path.name]}
    assert changed == {
        name for name, text in before.items() if re.search(r"^SupplementaryGroups=.*\btee\b", text, re.M)
    }
    assert "mpagent.service" in changed
    for path in unit.iterdir():
        groups = re.findall(r"^SupplementaryGroups=(.*)$", path.read_text(), re.MULTILINE)
        assert "tee" not in " ".join(groups).split()
        assert path.read_text().replace("teeclnt", "tee") == before[path.name]
    assert "g teeclnt -" in (users / "sysusers.d/mpagent.conf").read_text().splitlines()


def imported() -> set[str]:
    """First names of every module that agent/ imports."""
    found = set()
    for path in (ROOT / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    return found


def test_every_module_that_the_agent_imports_has_its_package() -> None:
    """oe-core cuts Python's library into packages: one that is missing stops a board, and no build."""
    wanted = imported() & sys.stdlib_module_names - CORE
    needed = {f"python3-{package}" for package, modules in PACKAGED.items() if modules & wanted}
    assert wanted - set().union(*PACKAGED.values()) == set(), "look up the package in oe-core's python3-manifest.json"
    assert needed - set(Recipe(RECIPE).words("RDEPENDS:${PN}")) == set()


def test_dependencies_and_extras_of_the_wheel_are_those_of_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = Recipe(RECIPE, TPM_APPEND)
    names = {"python-pkcs11": "python3-pkcs11", "tpm2-pytss": "python3-tpm2-pytss", "pyscard": "python3-pyscard"}
    for line in project["dependencies"]:
        assert f"python3-{re.split('[>=]', line)[0]}" in recipe.words("RDEPENDS:${PN}")
    for extra, lines in project["optional-dependencies"].items():
        assert {names[re.split("[>=]", line)[0]] for line in lines} <= set(recipe.words(f"RDEPENDS:${{PN}}-{extra}"))
        assert f"${{PN}}-{extra}" in recipe.words("PACKAGE_BEFORE_PN")
        assert recipe.values[f"ALLOW_EMPTY:${{PN}}-{extra}"] == "1"


@pytest.mark.parametrize(
    ("extra", "recipe"),
    [
        ("card", "recipes-devtools/python/python3-pyscard_2.3.1.bb"),
        ("tpm", "dynamic-layers/tpm-layer/recipes-devtools/python/python3-tpm2-pytss_2.3.0.bb"),
    ],
)
def test_libraries_of_our_own_are_the_lowest_release_we_take(extra: str, recipe: str) -> None:
    (line,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    assert Path(recipe).stem.split("_")[1] == line.split(">=")[1]
    values = Recipe(LAYER / recipe).values
    assert re.fullmatch(r"file://LICENSE;md5=[0-9a-f]{32}", values["LIC_FILES_CHKSUM"])
    assert re.search(r'^SRC_URI\[sha256sum\] = "[0-9a-f]{64}"$', (LAYER / recipe).read_text(), re.MULTILINE)


def test_the_kernel_fragment_is_the_agents_own() -> None:
    assert (KERNEL / "linux-mpagent/mpagent.cfg").read_text() == read_fragment()


def test_the_source_fragment_leaves_the_caam_alone_among_the_sources() -> None:
    lines = (KERNEL / "linux-mpagent/mpagent-source.cfg").read_text().splitlines()
    off = {match[1] for line in lines if (match := re.fullmatch(r"# (CONFIG_\w+) is not set", line))}
    sources = {o.name for o in list_options() if o.section.startswith("source") and "TRUSTED_KEYS_" in o.name}
    assert off == sources - {"CONFIG_TRUSTED_KEYS_CAAM"}


@pytest.mark.parametrize("folder", [KERNEL, OPTEE], ids=["kernel", "optee"])
def test_other_layers_recipes_are_touched_with_the_distro_feature_alone(folder: Path) -> None:
    appends = list(folder.glob("*.bbappend"))
    assert appends
    for path in appends:
        match = re.fullmatch(
            r"require \$\{@bb\.utils\.contains\('DISTRO_FEATURES', 'mpagent', '([\w-]+\.inc)', '', d\)\}\n",
            path.read_text(),
        )
        assert match and (folder / match[1]).is_file()


def test_the_door_for_linux_is_opened_in_the_provisioning_configuration_alone() -> None:
    """T-560 The provisioning OP-TEE leaves the factory, because both images share one."""
    lines = [line for path in metadata() for line in path.read_text().splitlines() if "NO_ACCESS_CTRL=" in line]
    assert lines == [
        "EXTRA_OEMAKE:append:mx8m-nxp-bsp = \"${@bb.utils.contains('DISTRO_FEATURES', 'mpagent-provisioning', "
        "' CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=y', '', d)}\""
    ]
    named = {
        path.name for path in metadata() if re.search(r"DISTRO_FEATURES:append.*mpagent-provisioning", path.read_text())
    }
    assert named == {"mpagent-provisioning.conf"}
    assert "TMPDIR" in (LAYER / "conf/multiconfig/mpagent-provisioning.conf").read_text()


def test_a_board_without_its_state_partition_is_not_enrolled_into_memory() -> None:
    mount = (LAYER / "recipes-mpagent/mpagent/files/var-lib-mpagent.mount").read_text().splitlines()
    assert {"Where=/var/lib/mpagent", "After=var-volatile-lib.service"} <= set(mount)
    for unit in ("mpagent.service", "mpagent-credentials.service", "mpagent-finish.service"):
        assert "RequiresMountsFor=/var/lib/mpagent" in (ROOT / "systemd" / unit).read_text().splitlines()
    label = "mpagent-state"
    assert f"What=/dev/disk/by-label/{label}" in mount
    assert f"--label {label} " in (LAYER / "recipes-mpagent/images/mpagent-imx8m.wks.in").read_text()
