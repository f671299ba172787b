"""A real TPM 2.0 in software (swtpm) as a process of ours: start, cut the power, stop, give it an EK certificate.

The certificate is ours and not swtpm_setup's: that tool certifies an RSA and a P-384 EK, and wants a CA on the machine.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from mpsim.ek_authority import EkAuthority
from mpwire.errors import MpError, Retry

SOCKET_PATH_MAX_BYTES: Final = 107
"""sizeof(sun_path) less its end (unix(7))."""
START_MAX_S: Final = 10.0
EK_CERTIFICATE_INDEX: Final = "0x01C0000A"
_EK_CERTIFICATE_ATTRIBUTES: Final = "ppwrite|writedefine|ppread|ownerread|authread|no_da|platformcreate"
"""As the TCG EK Credential Profile, section 2.2.1, wants such an index."""
_POLL_S: Final = 0.005


class SoftTpmBroke(MpError):
    """swtpm or a tool beside it is missing, died, or does not listen."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


class SoftTpm:
    """One TPM. Its secrets are the files in `state`; whoever copies them has a twin, as no real TPM has."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        # Beside the state the path would often be too long for a socket.
        self._sockets = Path(tempfile.mkdtemp(prefix="mptpm-"))
        self._socket = self._sockets / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """For mpagent.toml and for ESAPI; the same after every restart of this object."""
        return f"swtpm:path={self._socket}"

    @property
    def process_id(self) -> int | None:
        """Of swtpm while the power is on."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Power on: swtpm does TPM2_Startup(CLEAR) itself, as firmware would. Returns when it listens."""
        self._state.mkdir(parents=True, exist_ok=True)
        control = f"{self._socket}.ctrl"
        if len(control.encode()) > SOCKET_PATH_MAX_BYTES:
            raise SoftTpmBroke(f"{control} is too long for a socket")
        self._clear_sockets()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}"]
        command += ["--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={control}"]
        command += ["--flags", "not-need-init,startup-clear"]
        log = self._state / "swtpm.log"
        try:
            with open(log, "ab") as output:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        except FileNotFoundError as missing:
            raise SoftTpmBroke("swtpm is not installed") from missing
        self._wait_until_it_listens(Path(control), log)

    def cut_power(self) -> None:
        """SIGKILL: no TPM2_Shutdown, no flush of anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def power_cycle(self) -> None:
        """Cut the power and switch it on again."""
        self.cut_power()
        self.start()

    def stop(self) -> None:
        """End swtpm in order and remove its sockets; the state stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._sockets, ignore_errors=True)

    def install_ek_certificate(self, authority: EkAuthority) -> bytes:
        """Certify the P-256 EK and write the certificate where TPM makers do; its DER.

        tpm2-tools make the EK from their own template, so that a mistake in ours would show.
        """
        with tempfile.TemporaryDirectory(prefix="mpek-") as scratch:
            context, public, certificate = (f"{scratch}/{name}" for name in ("ek.ctx", "ek.pem", "ek.der"))
            self.use_tool("tpm2_createek", "-G", "ecc", "-c", context, "-u", public, "-f", "pem")
            der = authority.certify(Path(public).read_bytes())
            Path(certificate).write_bytes(der)
            size = ["-s", str(len(der)), "-a", _EK_CERTIFICATE_ATTRIBUTES]
            self.use_tool("tpm2_nvdefine", EK_CERTIFICATE_INDEX, "-C", "p", *size)
            self.use_tool("tpm2_nvwrite", EK_CERTIFICATE_INDEX, "-C", "p", "-i", certificate)
        self.use_tool("tpm2_flushcontext", "-t")
        return der

    def use_tool(self, tool: str, *arguments: str) -> bytes:
        """Run one of tpm2-tools against this TPM; its output. Raises SoftTpmBroke with its complaint."""
        try:
            done = subprocess.run([tool, "-T", self.tcti, *arguments], capture_output=True, check=False)
        except FileNotFoundError as missing:
            raise SoftTpmBroke(f"{tool} is not installed") from missing
        if done.returncode:
            raise SoftTpmBroke(f"{tool} failed", detail=done.stderr.decode(errors="replace"))
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_listens(self, control: Path, log: Path) -> None:
        """The socket files are there before anybody listens: only a connection tells."""
        deadline = time.monotonic() + START_MAX_S
        while not (_listens(control) and _listens(self._socket)):
            died = self._process is None or self._process.poll() is not None
            if died or time.monotonic() > deadline:
                self.cut_power()
                raise SoftTpmBroke("swtpm did not start", detail=log.read_text(errors="replace")[-2000:])
            time.sleep(_POLL_S)

    def _clear_sockets(self) -> None:
        for leftover in self._sockets.iterdir():
            leftover.unlink()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
