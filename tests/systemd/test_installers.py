"""The finisher hands a verified bundle to the real RAUC and the real SWUpdate, from its sandbox, under systemd."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.mpagent.finish_bench import MIB, ROOT_MIB, Bench, make_server, open_bench

from .bundles import COMPATIBLE, Signer, make_rauc_bundle, make_signer, make_swu
from .machine import boot

ROOT: Final = random.Random(7).randbytes(3 * MIB) + bytes(MIB) + b"the production root"
SPOOL: Final = "var/cache/mpagent-finish/bundle"
DISK: Final = "/trial/board/disk"
TARGET: Final = "/dev/production"
_RAUC: Final = f"""
for number in $(seq 0 15); do mknod /dev/loop$number b 7 $number; done
mknod /dev/loop-control c 10 237
mkdir -p /etc/rauc /etc/systemd/system/rauc.service.d
cp /trial/out/keys.pem /etc/rauc/keys.pem
printf '[system]\\ncompatible={COMPATIBLE}\\nbootloader=noop\\n[keyring]\\npath=/etc/rauc/keys.pem\\n\
[slot.rescue.0]\\ndevice=/dev/null\\nbootname=rescue\\n\
[slot.rootfs.0]\\ndevice={TARGET}\\ntype=raw\\nbootname=production\\n' >/etc/rauc/system.conf
printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/rauc --mount=/run/rauc --override-boot-slot=rescue service\\n' \
    >/etc/systemd/system/rauc.service.d/trial.conf
"""
_SWUPDATE: Final = """
cp /trial/out/keys.pem /etc/swupdate.pem
printf 'globals: { public-key-file = "/etc/swupdate.pem"; };\\n' >/etc/swupdate.cfg
echo "gateway 1.0" >/etc/hwrevision
"""
SET_UP: Final = {"rauc": _RAUC, "swupdate": _SWUPDATE}


@pytest.fixture(scope="module")
def oem(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("oem"), "oem")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("stranger"), "stranger")


def make_bundle(installer: str, folder: Path, signer: Signer) -> bytes:
    return make_rauc_bundle(folder, signer, ROOT) if installer == "rauc" else make_swu(signer, ROOT, TARGET)


@contextmanager
def spooled(folder: Path, installer: str, bundle: bytes) -> Iterator[Bench]:
    """A finished board that has fetched the bundle of its Grant, in a boot whose image had no installer yet."""
    server = make_server(folder / "oem", bundle)
    try:
        with open_bench(server) as bench:
            bench.set_finish(f'installer = "{installer}"\ntarget = "/{SPOOL}"\n')
            bench.enroll()
            done = bench.finish()
            assert done.returncode == 78 and f"/usr/bin/{installer} is not in this image" in done.stderr
            assert (bench.disk / SPOOL).read_bytes() == bundle
            (bench.disk / "usr/bin" / installer).symlink_to(f"/usr/bin/{installer}")
            yield bench
    finally:
        server.stop()


def finish(bench: Bench, installer: str, folder: Path, trusted: Signer) -> list[str]:
    """mpagent-finish.service in a machine whose installer believes one signer; lines of its trial."""
    number = bench.partition(3).stat().st_rdev
    trial = f"""
    wait_for systemctl is-active --quiet mpagent-provisioned.target
    mknod {TARGET} b {os.major(number)} {os.minor(number)}
    {SET_UP[installer]}
    cd {DISK} && chown root:root . var var/cache {Path(SPOOL).parent} {SPOOL}
    chown -R root:root var/lib/mpagent/finish
    folder=/etc/systemd/system/mpagent-finish.service.d
    mkdir $folder && printf '[Service]\\nReadWritePaths=/trial/board\\nRestart=no\\n' >$folder/trial.conf
    systemctl daemon-reload
    systemctl start mpagent-finish.service
    systemctl show mpagent-finish.service --property=ActiveState,ExecMainStatus
    journalctl --no-pager -o cat -u mpagent-finish.service
    test -e {SPOOL} && echo "the bundle is still there"
    sync
    journalctl --no-pager -o cat -u rauc.service
    """
    folder.mkdir()
    out = folder / "out"
    keys = trusted.certificate_file.read_text()
    return boot(bench.folder / "b", out, trial, files={"keys.pem": keys})


@pytest.mark.parametrize("installer", SET_UP)
def test_a_bundle_of_the_oem_is_installed_by_the_real_program(installer: str, oem: Signer, tmp_path: Path) -> None:
    with spooled(tmp_path, installer, make_bundle(installer, tmp_path, oem)) as bench:
        lines = finish(bench, installer, tmp_path / "boot", oem)
        said = "\n".join(lines)
        assert {"ActiveState=active", "ExecMainStatus=0", "DONE install-image"} <= set(lines), said
        assert bench.read(3, len(ROOT)) == ROOT and "the bundle is still there" not in lines, said


@pytest.mark.parametrize("installer", SET_UP)
def test_a_bundle_of_another_signer_is_installed_by_neither(
    installer: str, oem: Signer, stranger: Signer, tmp_path: Path
) -> None:
    """T-591 Insider: the Grant names a bundle whose signer the image's installer does not believe."""
    with spooled(tmp_path, installer, make_bundle(installer, tmp_path, stranger)) as bench:
        lines = finish(bench, installer, tmp_path / "boot", oem)
        said = "\n".join(lines)
        assert {"ActiveState=failed", "ExecMainStatus=74"} <= set(lines) and f"{installer} failed" in said, said
        assert not any(bench.read(3, ROOT_MIB * MIB)), said


@pytest.mark.parametrize("installer", SET_UP)
def test_a_bundle_that_was_changed_on_the_board_is_handed_to_neither(
    installer: str, oem: Signer, tmp_path: Path
) -> None:
    """T-592 Worn flash, or a thief at the disk: a bit of the spooled bundle. It is read back before it is handed on."""
    with spooled(tmp_path, installer, make_bundle(installer, tmp_path, oem)) as bench:
        spool = bench.disk / SPOOL
        content = bytearray(spool.read_bytes())
        content[len(content) // 2] ^= 1
        spool.write_bytes(content)
        lines = finish(bench, installer, tmp_path / "boot", oem)
        said = "\n".join(lines)
        assert {"ActiveState=failed", "ExecMainStatus=76"} <= set(lines) and "its SHA-256 is another" in said, said
        assert f"handing the verified image to {installer}" not in said
        assert not any(bench.read(3, ROOT_MIB * MIB)), said
