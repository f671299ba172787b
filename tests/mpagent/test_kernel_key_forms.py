"""Bytes of the kernel-key sealer: CCM as others do it, TPMKey as others read it, blobs, and the kernel's options."""

import gzip
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

from mpagent.hal.caam import blobs, dm_crypt, kernel_config, list_missing_options, list_options, tpm_key
from mpagent.hal.caam.blobs import KEK_DIGITS_MAX, KekBlob, SealedDek
from mpagent.hal.caam.source import Source
from mpagent.hal.caam.tpm_key import TpmKey
from mpagent.hal.caam.wrap import ccm_unwrap, ccm_wrap, make_iv

KEY = bytes(range(32))
KEK = KekBlob(Source.CAAM, b"5a" * 80)
SEALED = SealedDek(KEK, bytes(12), bytes(48))


def encrypt(blocks: bytes) -> bytes:
    """AES blocks each for itself, as the volume gives them."""
    cipher = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    return cipher.update(blocks) + cipher.finalize()


@given(nonce=st.binary(min_size=12, max_size=12), aad=st.binary(min_size=1, max_size=80), text=st.binary(max_size=80))
def test_ccm_over_blocks_is_everybodys_ccm(nonce: bytes, aad: bytes, text: bytes) -> None:
    ours = ccm_wrap(encrypt, nonce, aad, text)
    assert ours == AESCCM(KEY).encrypt(nonce, text, aad)
    assert ccm_unwrap(encrypt, nonce, aad, ours) == text


def test_ccm_finds_every_flipped_bit() -> None:
    nonce, aad = secrets.token_bytes(12), secrets.token_bytes(32)
    sealed = ccm_wrap(encrypt, nonce, aad, KEY)
    for place in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[place // 8] ^= 1 << place % 8
        assert ccm_unwrap(encrypt, nonce, aad, bytes(bent)) is None
    assert ccm_unwrap(encrypt, nonce, aad, sealed[:15]) is None


def test_iv_for_the_kernel_has_l_less_one_in_front_and_l_zeros_behind() -> None:
    """As it was run on Linux 6.12: 12-byte nonce, first byte 2, three zero bytes."""
    assert make_iv(bytes(range(1, 13))) == bytes([2, *range(1, 13), 0, 0, 0])


def test_tpm_key_is_the_sequence_that_the_kernel_reads() -> None:
    """Spelled by hand from tpm2key.asn1; the real kernel reads ours in the QEMU bench."""
    der = TpmKey(0x81004D50, b"PUB", b"PRIVATE").write()
    assert der.hex() == (
        "3026"
        + "06066781050a0105"
        + "a0030101ff"
        + "02050081004d50"
        + "0405"
        + "0003505542"
        + "0409"
        + "000750524956415445"
    )


@pytest.mark.parametrize("size", [1, 100, 125, 126, 200, 253, 254, 300])
def test_tpm_key_comes_back_at_every_form_of_length(size: int) -> None:
    key = TpmKey(0x81000001, bytes(size), bytes(size + 1))
    assert tpm_key.read(key.write()) == key


def test_tpm_key_of_any_other_form_is_none() -> None:
    der = TpmKey(0x81004D50, bytes(50), bytes(150)).write()
    for bent in (b"", der[:1], der[:-1], der + b"\0", b"\x31" + der[1:], der.replace(b"\x0a\x01\x05", b"\x0a\x01\x03")):
        assert tpm_key.read(bent) is None
    for place in range(len(der)):
        found = tpm_key.read(der[:place] + bytes([der[place] ^ 1]) + der[place + 1 :])
        assert found is None or found != tpm_key.read(der)


def test_blob_comes_back() -> None:
    assert blobs.read(SEALED.write()) == SEALED
    assert len(SEALED.write()) == 227


def test_blob_of_the_largest_key_still_fits_the_port() -> None:
    largest = SealedDek(KekBlob(Source.TPM, b"30" * (KEK_DIGITS_MAX // 2)), bytes(12), bytes(48))
    assert len(largest.write()) <= 1024
    assert blobs.read(largest.write()) == largest


@pytest.mark.parametrize(
    "bent",
    [
        b"",
        b"MPK1",
        SEALED.write()[:-1],
        SEALED.write() + b"\0",
        SEALED.write().replace(b"MPK1", b"MPT1"),
        SEALED.write().replace(b"MPK1\x01", b"MPK1\x05"),
        SEALED.write().replace(b"5a", b"5A"),
        SealedDek(KekBlob(Source.TEE, b"5a" * 80), bytes(12), bytes(48)).write(),
        SealedDek(KekBlob(Source.DCP, b"02" * 85), bytes(12), bytes(48)).write(),
        SealedDek(KekBlob(Source.TPM, b"5a" * 80), bytes(12), bytes(48)).write(),
        SealedDek(KekBlob(Source.CAAM, b"5a" * 20), bytes(12), bytes(48)).write(),
        SealedDek(KekBlob(Source.CAAM, b"5a" * 79 + b"5"), bytes(12), bytes(48)).write(),
    ],
)
def test_anything_else_is_no_blob(bent: bytes) -> None:
    """Above all, no short one reaches the CAAM."""
    assert blobs.read(bent) is None


@given(st.binary(max_size=1100))
def test_no_bytes_break_the_reader(noise: bytes) -> None:
    found = blobs.read(noise)
    assert found is None or found.write() == noise


def test_volume_has_the_table_that_dm_crypt_reads() -> None:
    table = dm_crypt._table("mpagent-00", 7)
    assert table[40:].rstrip(b"\0") == b"aes-ecb :32:trusted:mpagent-00 0 7:7 0"
    assert int.from_bytes(table[20:24], "little") == len(table) and len(table) % 8 == 0


def write_running(root: Path, text: str) -> None:
    (root / "proc").mkdir()
    (root / "proc/config.gz").write_bytes(gzip.compress(text.encode()))


def test_missing_options_come_with_their_reasons(tmp_path: Path) -> None:
    """A kernel as Debian builds it: keyrings, and no trusted keys."""
    write_running(
        tmp_path, "CONFIG_KEYS=y\n# CONFIG_TRUSTED_KEYS is not set\nCONFIG_IKCONFIG=y\nCONFIG_IKCONFIG_PROC=y\n"
    )
    missing = list_missing_options(["all", "source caam"], tmp_path)
    assert missing is not None
    assert [option.name for option in missing][:2] == ["CONFIG_TRUSTED_KEYS", "CONFIG_CRYPTO_HW"]
    assert "ENODEV" in missing[0].reason


def test_module_is_as_good_as_built_in(tmp_path: Path) -> None:
    write_running(tmp_path, "".join(f"{option.name}=m\n" for option in list_options()))
    assert list_missing_options({option.section for option in list_options()}, tmp_path) == ()


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"CONFIG_KEYS=y", mtime=0)[:-9]])
def test_kernel_that_hides_its_options_is_not_said_to_lack_them(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "proc").mkdir()
    if content is not None:
        (tmp_path / "proc/config.gz").write_bytes(content)
    found = list_missing_options(["all"], tmp_path)
    assert found is None


def test_every_option_of_the_fragment_has_a_reason_and_a_place() -> None:
    sections = {"all", "source caam", "source tee", "source tpm", "source dcp", "wrap af_alg", "wrap dm-crypt"}
    options = list_options()
    assert {option.section for option in options} == sections
    assert all(option.reason and option.name.startswith("CONFIG_") for option in options)
    lines = [line for line in kernel_config.read_fragment().splitlines() if line and not line.startswith("#")]
    assert lines == [f"{option.name}=y" for option in options]
