"""The check of a production image, run as bitbake would: the body of the class's function, with its `d` and `bb`."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from mpagent.hal.mp.examination import XTEST_MP_SIGN

from .recipes import LAYER, Recipe, function

CLASS: Final = LAYER / "classes/mpagent_production_qa.bbclass"
CONF: Final = "# auto-generated TEE configuration file\nARCH=arm\nCFG_NXP_CAAM=y\nCFG_TEE_CORE_LOG_LEVEL=0\n"


class Stopped(Exception):
    """What bb.fatal raises here."""


class Build:
    """A root file system, a deploy folder, and bitbake's variables."""

    def __init__(self, folder: Path) -> None:
        self.rootfs, self.deploy = folder / "rootfs", folder / "deploy"
        self.put("usr/lib/python3.12/site-packages/mpagent/__init__.py")
        self.put("usr/lib/optee_armtz/f04a0fe7-1f5d-4b9b-abf7-619b85b4ce8c.ta")
        self.put("usr/bin/mpagent")
        (self.deploy / "optee").mkdir(parents=True)
        (self.deploy / "optee/tee-raw.bin").write_bytes(b"OPTE of this build")
        self.conf = self.deploy / "optee/mpagent-optee-conf.mk"
        self.conf.write_text(CONF)
        self.variables = {
            "PN": "mpagent-image-production",
            "IMAGE_ROOTFS": str(self.rootfs),
            "MACHINE_FEATURES": "usbhost optee",
            "DISTRO_FEATURES": "systemd mpagent",
            "MPAGENT_OPTEE_CONF": str(self.conf),
        }

    def put(self, path: str, content: bytes = b"") -> None:
        target = self.rootfs / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def check(self) -> str:
        """What the build stops with; empty where it goes on."""

        def fatal(text: str) -> None:
            raise Stopped(text)

        names = {"d": SimpleNamespace(getVar=self.variables.get), "bb": SimpleNamespace(fatal=fatal)}
        try:
            exec(textwrap.dedent(function(CLASS, "python mpagent_production_qa ()")), names)
        except Stopped as stopped:
            return str(stopped)
        return ""


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """As addpylib of layer.conf does it."""
    monkeypatch.syspath_prepend(str(LAYER / "lib"))
    yield Build(tmp_path)
    sys.modules.pop("mpagentlayer.production", None)


def test_a_clean_image_passes(image: Build) -> None:
    image.put("usr/lib/firmware/tee-raw.bin", b"OPTE of this build")
    assert image.check() == ""


def spoil_conf(image: Build, text: str) -> None:
    image.conf.write_text(text)


Spoiler = Callable[[Build], None]
OPTEE: Final[dict[str, tuple[Spoiler, str]]] = {
    "open": (lambda i: spoil_conf(i, f"{CONF}CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=y\n"), "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=y"),
    "ajar": (lambda i: spoil_conf(i, f"{CONF}CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=1\n"), "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=1"),
    "unknown": (lambda i: i.conf.unlink(), "nobody knows how OP-TEE was built"),
    "empty": (lambda i: spoil_conf(i, ""), "holds no option"),
    "another": (lambda i: i.put("usr/lib/firmware/tee.bin", b"OPTE of another"), "did not deploy"),
    "feature": (lambda i: i.variables.update(DISTRO_FEATURES="mpagent mpagent-provisioning"), "mpagent-provisioning"),
}
ROOT_FILES: Final = {
    f"usr/lib/optee_armtz/{XTEST_MP_SIGN}.ta": "signs with the MP key for anybody",
    f"data/tee/{str(XTEST_MP_SIGN).upper()}.ta": "signs with the MP key for anybody",
    "usr/lib/python3.12/site-packages/mpsim/__init__.py": "never on a device",
    "usr/bin/mpsim": "never on a device",
    "opt/mpagent_sim-0.1.0.dist-info/METADATA": "never on a device",
    "usr/bin/mpserver": "never on a device",
    "usr/lib/python3.12/site-packages/mpissuer/issuer.py": "never on a device",
}


@pytest.mark.parametrize("name", OPTEE)
def test_an_optee_that_may_let_linux_sign_stops_a_production_image(name: str, image: Build) -> None:
    """T-560 The provisioning OP-TEE leaves the factory: whoever is root signs as any unit of the class."""
    spoil, told = OPTEE[name]
    spoil(image)
    assert told in image.check()


@pytest.mark.parametrize("path", ROOT_FILES)
def test_a_file_that_is_never_on_a_device_stops_a_production_image(path: str, image: Build) -> None:
    """T-561 A test TA that signs for anybody, or the simulator, is in the image that ships."""
    image.put(path)
    assert ROOT_FILES[path] in image.check()


def test_every_fault_is_told_at_once(image: Build) -> None:
    image.conf.unlink()
    image.put("usr/bin/mpsim")
    image.put(f"usr/lib/optee_armtz/{XTEST_MP_SIGN}.ta")
    assert image.check().count("\n") == 3


def test_an_option_that_is_off_is_off(image: Build) -> None:
    image.conf.write_text(f"{CONF}CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=n\n")
    assert image.check() == ""


def test_a_machine_without_optee_is_judged_by_its_root_alone(image: Build) -> None:
    image.conf.unlink()
    image.variables["MACHINE_FEATURES"] = "usbhost"
    assert image.check() == ""
    image.put("usr/bin/mpsim")
    assert "never on a device" in image.check()


def test_the_class_is_run_on_every_production_image_and_has_no_switch() -> None:
    recipe, text = Recipe(CLASS), CLASS.read_text()
    assert recipe.words("IMAGE_QA_COMMANDS") == ["mpagent_production_qa"]
    assert recipe.words("CONFLICT_DISTRO_FEATURES") == ["mpagent-provisioning"]
    assert "?=" not in text and "bb.warn" not in text
    assert "inherit mpagent_production_qa" in (LAYER / "recipes-mpagent/images/mpagent-image-production.bb").read_text()
