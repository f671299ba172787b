"""A TPM as its maker ships it: swtpm_setup certifies an RSA EK under a CA of two levels, and no P-256 one."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from mpagent.errors import HardwareGone
from mpagent.hal.tpm import open_tpm
from mpagent.record import Stage
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import tpm2
from tests.line import PRODUCT, Factory, Oem
from tests.mpagent.bus import Probe, listen_to

MADE_AT = "2026-06-01 00:00:00"
"""Before the issuer's clock of these tests."""
CERTIFIED = PRODUCT.replace('grades = ["L"]', 'grades = ["K"]')


class Maker:
    """swtpm_setup and its local CA, with everything in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "ca").mkdir(parents=True)
        ca = {"statedir": "", "signingkey": "/key.pem", "issuercert": "/issuer.pem", "certserial": "/serial"}
        self._write("ca.conf", "".join(f"{name} = {folder}/ca{place}\n" for name, place in ca.items()))
        self._write("ca.options", "--platform-manufacturer maker\n--platform-version 1\n--platform-model board\n")
        tool = "create_certs_tool=/usr/bin/swtpm_localca\n"
        tool += f"create_certs_tool_config={folder}/ca.conf\ncreate_certs_tool_options={folder}/ca.options\n"
        self._write("setup.conf", tool)

    def make(self, name: str) -> Path:
        """State of a new TPM with certificates in NV."""
        state = self._folder / name
        state.mkdir()
        command = ["faketime", "-f", MADE_AT, "swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert"]
        command += ["--config", str(self._folder / "setup.conf")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return state

    def certificates(self, *names: str) -> list[str]:
        """PEM, for a product's file."""
        return [(self._folder / "ca" / name).read_text() for name in names]

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "maker")


def pinning(pems: list[str]) -> str:
    """The product with these pinned."""
    listed = ",\n".join(f'"""\n{pem[pem.index("-----BEGIN CERT") :]}"""' for pem in pems)
    return f"ek_roots = [{listed}]\n" + CERTIFIED


ROOT, ISSUER = "swtpm-localca-rootca-cert.pem", "issuer.pem"


def test_tpm_with_its_makers_rsa_certificate_enrolls(maker: Maker, tmp_path: Path) -> None:
    """Nobody listed its EK; the chain alone admits it, and the credential is for the RSA key."""
    with SoftTpm(maker.make("tpm")) as tpm, ExitStack() as stack:
        oem = Oem(tmp_path / "oem", product=pinning(maker.certificates(ISSUER, ROOT)))
        device = Factory(tmp_path, oem, stack).tpm_board(tpm)

        assert device.enroll().stage is Stage.DONE

        assert oem.rows("SELECT attester, grade FROM units") == [("tpm", "K")]
        first = device.secrets()
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            material = parts.attester.describe()
        assert material.ek_certificate is not None and material.ek_public is not None
        key = x509.load_der_x509_certificate(material.ek_certificate).public_key()
        modulus = int.from_bytes(tpm2.read_public(material.ek_public).unique, "big")
        assert key.public_numbers().n == modulus  # type: ignore[union-attr]  # the library's type is any key's
        assert device.secrets() == first
        oem.stop()


def test_kept_ek_is_used_and_a_missing_one_made_anew_with_the_same_name(maker: Maker) -> None:
    """To make an RSA key anew takes a discrete TPM many seconds; one that was evicted is still in the seed."""
    with SoftTpm(maker.make("tpm")) as tpm:
        with listen_to(tpm) as probe, open_tpm(probe.tcti, MemoryShelf()) as parts:
            kept = parts.attester.describe()
        assert made_in_endorsement_hierarchy(probe) == 0
        tpm.use_tool("tpm2_evictcontrol", "-C", "p", "-c", "0x81010001")
        with listen_to(tpm) as probe, open_tpm(probe.tcti, MemoryShelf()) as parts:
            anew = parts.attester.describe()
        assert made_in_endorsement_hierarchy(probe) == 1
        assert (anew.ek_public, anew.ek_certificate) == (kept.ek_public, kept.ek_certificate)


def test_other_key_where_makers_keep_the_ek_is_passed_over(maker: Maker, tmp_path: Path) -> None:
    """Somebody's signing key at that handle is not shown as an EK."""
    with SoftTpm(maker.make("tpm")) as tpm:
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            before = parts.attester.describe()
        tpm.use_tool("tpm2_evictcontrol", "-C", "p", "-c", "0x81010001")
        other = str(tmp_path / "other")
        tpm.use_tool("tpm2_createprimary", "-C", "o", "-G", "rsa", "-c", other)
        tpm.use_tool("tpm2_evictcontrol", "-C", "o", "-c", other, "0x81010001")
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            assert parts.attester.describe().ek_public == before.ek_public


def made_in_endorsement_hierarchy(probe: Probe) -> int:
    """TPM2_CreatePrimary of EKs."""
    return sum(code == 0x131 and body[:4] == b"\x40\x00\x00\x0b" for code, body in probe.commands())


@pytest.mark.parametrize("pinned", [[ROOT], []], ids=["root without the CA below it", "nothing"])
def test_chain_that_is_not_pinned_whole_is_refused(maker: Maker, tmp_path: Path, pinned: list[str]) -> None:
    """A TPM has its own certificate only; the maker's CA in between has to be pinned as well."""
    with SoftTpm(maker.make("tpm")) as tpm, ExitStack() as stack:
        oem = Oem(tmp_path / "oem", product=pinning(maker.certificates(*pinned)))
        device = Factory(tmp_path, oem, stack).tpm_board(tpm)
        with pytest.raises(Exception, match="ek") as refused:
            device.enroll()
        assert getattr(refused.value, "check", "") == "ek"
        assert oem.granted() == 0
        oem.stop()


def test_certificate_of_another_tpm_of_the_same_maker_is_refused(maker: Maker, tmp_path: Path) -> None:
    """T-91 Made-up maker: a true certificate, moved from another TPM into this one's NV."""
    with SoftTpm(maker.make("other")) as other:
        certificate = tmp_path / "certificate"
        certificate.write_bytes(other.use_tool("tpm2_nvread", "0x01C00002", "-C", "o"))
    with SoftTpm(tmp_path / "tpm") as tpm, ExitStack() as stack:
        size = str(certificate.stat().st_size)
        tpm.use_tool("tpm2_nvdefine", "0x01C00002", "-C", "o", "-s", size)
        tpm.use_tool("tpm2_nvwrite", "0x01C00002", "-C", "o", "-i", str(certificate))
        oem = Oem(tmp_path / "oem", product=pinning(maker.certificates(ISSUER, ROOT)))
        with pytest.raises(Exception, match="ek"):
            Factory(tmp_path, oem, stack).tpm_board(tpm).enroll()
        assert oem.granted() == 0
        oem.stop()


def test_garbage_in_the_index_stops_before_the_server_hears_of_the_board(tmp_path: Path) -> None:
    """There but broken stops: nothing of it is sent, and the text names the index."""
    with SoftTpm(tmp_path / "tpm") as tpm, ExitStack() as stack:
        garbage = tmp_path / "garbage"
        garbage.write_bytes(b"\x30\x82\xff\xff" + bytes(596))
        tpm.use_tool("tpm2_nvdefine", "0x01C0000A", "-C", "o", "-s", "600")
        tpm.use_tool("tpm2_nvwrite", "0x01C0000A", "-C", "o", "-i", str(garbage))
        oem = Oem(tmp_path / "oem")
        device = Factory(tmp_path, oem, stack).tpm_board(tpm)
        with pytest.raises(HardwareGone, match="0x01C0000A holds 600 bytes that are no certificate"):
            device.enroll()
        assert device.line.heard == []
        oem.stop()
