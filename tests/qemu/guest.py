"""One arm64 machine under QEMU with a TPM of its own: boot it with a job, wait, end it in order or cut its power.

Always emulated (TCG): /dev/kvm being there says nothing (a nested host may have one that runs no ordinary kernel), and
KVM would serve x86 guests alone on the machines that build this. Emulated, arm64 boots as fast as x86 does.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.qemu.kernel import find_kernel
from tests.qemu.root import find_root

BOOT_MAX_S: Final = 60.0
"""From QEMU's start to the job's; about 6 s on an idle machine."""
END_MAX_S: Final = 30.0
_POLL_S: Final = 0.05
_TAIL: Final = 3000
_TREE: Final = Path(__file__).parent.parent.parent


class GuestBroke(AssertionError):
    """The guest did not do what the test is about; the text ends with the end of its console."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: int
    output: str
    """stdout and stderr of the job."""


class Machine:
    """What survives a power cut: the TPM's state and the folder `work`, which the guest sees as /run/share."""

    def __init__(self, folder: Path, devices: Sequence[str] = ()) -> None:
        self.folder = folder
        self.devices = tuple(devices)
        """QEMU's arguments for what this machine has besides: disks, a network."""
        self.work = folder / "work"
        self._tpm_state = folder / "tpm"
        for made in (self.work, self._tpm_state):
            made.mkdir(parents=True, exist_ok=True)
        self.boots = 0

    def run(self, job: str, *, limit_s: float, bare: bool = False, options: str = "") -> Outcome:
        """Boot, run the job (inside/jobs.sh) to its end, power off in order."""
        with self.boot(job, bare=bare, options=options) as guest:
            return guest.finish(limit_s)

    def boot(self, job: str, *, bare: bool = False, options: str = "") -> "Guest":
        """Power on. `bare`: the job is the first process, without systemd. `options` go to the kernel."""
        self.boots += 1
        return Guest(self, job, bare=bare, options=options)

    def root_drive(self) -> str:
        """What QEMU's -drive is told of the disk that is booted; nothing the guest writes there outlives the boot."""
        return f"file={find_root()},format=raw,cache=unsafe,snapshot=on"

    def root_device(self) -> str:
        """What the kernel is told to boot, as a boot loader would tell it."""
        return "/dev/vda"

    def connect(self, sockets: Path) -> Sequence[str]:
        """QEMU's arguments for this boot; starts what runs beside QEMU, with its sockets in the folder."""
        return self.devices

    def disconnect(self) -> None:
        """The first thing a power cut does, before QEMU is gone; called more than once."""


class Guest:
    """One boot."""

    def __init__(self, machine: Machine, job: str, *, bare: bool, options: str) -> None:
        self._machine = machine
        self._job = job
        # A socket's path must be short, and a test's folder is not.
        self._sockets = Path(tempfile.mkdtemp(prefix="mpqemu-"))
        self._console = machine.folder / f"console-{machine.boots}.log"
        init = "init=/usr/local/sbin/bench-job" if bare else ""
        self._kernel_line = (
            f"root={machine.root_device()} rw console=ttyAMA0 quiet loglevel=4 bench.job={job} {init} {options}"
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.power_on()
        try:
            self.wait_for(f"BENCH-BEGIN {self._job}", BOOT_MAX_S)
        except BaseException:
            self.cut_power()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    def power_on(self) -> None:
        """Start TPM and QEMU and wait for nothing; leaves nothing running where it fails."""
        for earlier in (self._machine.work / "output", self._console):
            earlier.unlink(missing_ok=True)
        try:
            self._start_tpm()
            self._start_qemu()
        except BaseException:
            self.cut_power()
            raise

    def wait_for(self, marker: str, limit_s: float) -> str:
        """The marker and the rest of its line on the console. systemd puts control characters before it.

        Raises GuestBroke when QEMU ends or time is up first.
        """
        line = self.wait_until(lambda line: marker in line, repr(marker), limit_s)
        return line[line.index(marker) :]

    def wait_until(self, fits: Callable[[str], bool], what: str, limit_s: float) -> str:
        """The first line of the console that fits."""
        deadline = time.monotonic() + limit_s
        while True:
            ended = self._processes[-1].poll() is not None
            for line in self.console().splitlines():
                if fits(line):
                    return line
            if ended or time.monotonic() > deadline:
                why = "ended" if ended else f"was silent for {limit_s:.0f} s"
                raise GuestBroke(f"the guest {why} before {what}; its console:\n{self.console()[-_TAIL:]}")
            time.sleep(_POLL_S)

    def finish(self, limit_s: float) -> Outcome:
        """Wait for the end of the job and for the machine to power off."""
        status = int(self.wait_for(f"BENCH-END {self._job} ", limit_s).split()[-1])
        try:
            self._processes[-1].wait(END_MAX_S)
        except subprocess.TimeoutExpired:
            raise GuestBroke(f"the guest does not power off; its console:\n{self.console()[-_TAIL:]}") from None
        return Outcome(status, (self._machine.work / "output").read_text(errors="replace"))

    def await_reboot(self, limit_s: float) -> None:
        """Wait until the board resets itself, which ends this QEMU: what it boots then is its firmware's to choose."""
        self.wait_for("reboot: Restarting system", limit_s)
        try:
            self._processes[-1].wait(END_MAX_S)
        except subprocess.TimeoutExpired:
            raise GuestBroke(f"the guest does not reset; its console:\n{self.console()[-_TAIL:]}") from None

    def cut_power(self) -> None:
        """SIGKILL of QEMU and of its TPM, both by process id; then nothing of this boot runs any more."""
        self._machine.disconnect()
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def console(self) -> str:
        """What the guest printed so far."""
        return self._console.read_text(errors="replace").replace("\r", "") if self._console.exists() else ""

    def _start_tpm(self) -> None:
        state, control = self._machine.folder / "tpm", self._sockets / "tpm"
        command = ["swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", f"dir={state}"]
        command += ["--ctrl", f"type=unixio,path={control}"]
        self._start(command, "swtpm.log")
        deadline = time.monotonic() + END_MAX_S
        while not control.exists():
            if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                raise GuestBroke(f"swtpm did not start: {(self._machine.folder / 'swtpm.log').read_text()[-_TAIL:]}")
            time.sleep(_POLL_S)

    def _start_qemu(self) -> None:
        command = ["qemu-system-aarch64", "-accel", "tcg,thread=multi", "-M", "virt", "-cpu", "cortex-a53"]
        command += ["-smp", "2", "-m", "1024", "-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot"]
        command += ["-serial", f"file:{self._console}", "-kernel", str(find_kernel()), "-append", self._kernel_line]
        command += ["-drive", f"if=none,id=r0,{self._machine.root_drive()}"]
        command += ["-device", "virtio-blk-pci,drive=r0", "-device", "virtio-rng-pci"]
        command += ["-virtfs", _share(_TREE, "tree", "readonly=on"), "-virtfs", _share(self._machine.work, "share")]
        command += ["-chardev", f"socket,id=tpm,path={self._sockets / 'tpm'}", "-tpmdev", "emulator,id=t0,chardev=tpm"]
        command += ["-device", "tpm-tis-device,tpmdev=t0", *self._machine.connect(self._sockets)]
        self._start(command, "qemu.log")

    def _start(self, command: list[str], log: str) -> None:
        with open(self._machine.folder / log, "ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._processes.append(process)


def _share(folder: Path, tag: str, *more: str) -> str:
    parts = ["local", f"path={folder}", f"mount_tag={tag}", "security_model=none", "multidevs=remap", *more]
    return ",".join(parts)
