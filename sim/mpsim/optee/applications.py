"""The pseudo-TAs of plat-imx that Linux may meet, and NXP's test TA beside them.

Sources: OP-TEE core/pta/imx/manufacturing_protection.c, ocotp.c and digprog.c; NXP's old
plat-imx/pta/pta_manufact_protec_mx.c; NXP imx-optee-test ta/mp_sign.
"""

from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpsim import fuses, silicon
from mpsim.optee.caam import MpDriver, Short
from mpsim.optee.gp import Kind, Param, Result, TeeRefusal, require_kinds
from mpsim.optee.scenario import Scenario
from mpwire import mp

SIGN: Final = 0
GET_PUBLIC_KEY: Final = 1
OLD_SIGNATURE_BYTES: Final = 64
DIGPROG: Final = {"imx8mq": 0x8240_00, "imx8mm": 0x8241_00, "imx8mn": 0x8242_00, "imx8mp": 0x8243_00}
"""ANATOP_DIGPROG without its low byte, which holds major and minor revision."""
WORD_BYTES: Final = 4
WORDS_PER_BANK: Final = 4


class MpPta:
    """Manufacturing protection, three-parameter shape (OP-TEE 3.21 and later)."""

    def __init__(self, chip: silicon.Chip, scenario: Scenario) -> None:
        self._driver = MpDriver(chip, scenario)
        self._scenario = scenario

    def open(self) -> None:
        """Only a TA may, unless the build says otherwise."""
        if self._scenario.access_control:
            raise TeeRefusal(Result.ACCESS_DENIED)

    def invoke(self, command: int, params: list[Param]) -> None:
        if command == SIGN:
            require_kinds(params, Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT, Kind.MEMREF_OUTPUT)
            self._sign(*params[:3])
        elif command == GET_PUBLIC_KEY:
            require_kinds(params, Kind.MEMREF_OUTPUT)
            self.export_key(params[0])
        else:
            raise TeeRefusal(Result.BAD_PARAMETERS)

    def spoil(self, command: int, params: list[Param]) -> None:
        """The signing command clears both outputs before it does anything."""
        if command == SIGN:
            for param in params[1:3]:
                param.clear()

    def export_key(self, key: Param) -> None:
        try:
            content = self._driver.export_key(key.room)
        except Short as short:
            key.size = short.needed
            raise
        key.write(content)
        key.size = self._scenario.sizes.get("key", len(content))

    def _sign(self, message: Param, signature: Param, mpmr: Param) -> None:
        signature.clear()
        mpmr.clear()
        try:
            signed = self._driver.sign(message.read(), signature.room)
        except Short as short:
            signature.size = short.needed
            raise
        signature.write(signed)
        signature.size = self._scenario.sizes.get("signature", len(signed))
        mpmr.give(self._driver.export_mpmr())
        mpmr.size = self._scenario.sizes.get("mpmr", mpmr.size)


class OldMpPta:
    """The same as NXP shipped it until 4.19.35: two parameters, the signature over the message, no size told back."""

    def __init__(self, chip: silicon.Chip, scenario: Scenario) -> None:
        self._driver = MpDriver(chip, scenario)

    def open(self) -> None:
        """Anyone may."""

    def invoke(self, command: int, params: list[Param]) -> None:
        if command == SIGN:
            require_kinds(params, Kind.MEMREF_INOUT, Kind.MEMREF_OUTPUT)
            self._sign(*params[:2])
        elif command == GET_PUBLIC_KEY:
            require_kinds(params, Kind.MEMREF_OUTPUT)
            params[0].write(self._driver.export_key(params[0].room))
        else:
            raise TeeRefusal(Result.BAD_PARAMETERS)

    def spoil(self, command: int, params: list[Param]) -> None:
        """Nothing: it fails before it writes."""

    def _sign(self, message: Param, mpmr: Param) -> None:
        content = message.read()
        if len(content) < OLD_SIGNATURE_BYTES:
            raise TeeRefusal(Result.BAD_PARAMETERS)
        message.write(self._driver.sign(content, OLD_SIGNATURE_BYTES).ljust(len(content), b"\0"))
        if mpmr.room != mp.MPMR_BYTES:
            raise TeeRefusal(Result.BAD_PARAMETERS)
        mpmr.write(self._driver.export_mpmr())


class MpSignTa:
    """NXP's xtest TA: asks the PTA from within the secure world, which is why it works behind access control."""

    def __init__(self, pta: MpPta | None) -> None:
        self._pta = pta

    def open(self) -> None:
        """Anyone may."""

    def invoke(self, command: int, params: list[Param]) -> None:
        if command == SIGN:
            require_kinds(params, Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT, Kind.MEMREF_OUTPUT)
            self._reach_pta().invoke(SIGN, params)
        elif command == GET_PUBLIC_KEY:
            require_kinds(params, Kind.MEMREF_OUTPUT, Kind.MEMREF_OUTPUT)
            self._reach_pta().export_key(params[0])
            self._write_pem(params[0], params[1])
        else:
            raise TeeRefusal(Result.BAD_PARAMETERS)

    def spoil(self, command: int, params: list[Param]) -> None:
        """As the PTA does."""
        if self._pta is not None:
            self._pta.spoil(command, params)

    def _reach_pta(self) -> MpPta:
        if self._pta is None:  # the TA reports a session it cannot open this way
            raise TeeRefusal(Result.BAD_PARAMETERS)
        return self._pta

    def _write_pem(self, key: Param, pem: Param) -> None:
        """mbedtls writes a string, and does not tell its length; a point it cannot read is BAD_PARAMETERS."""
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.read()[: key.size])
        except ValueError as error:
            raise TeeRefusal(Result.BAD_PARAMETERS) from error
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        text = point.public_bytes(*form) + b"\0"
        if pem.room < len(text):
            raise TeeRefusal(Result.BAD_PARAMETERS)
        pem.write(text)


class OcotpPta:
    """Fuses without root: CHIP_UID and READ_FUSE."""

    def __init__(self, chip: silicon.Chip) -> None:
        self._chip = chip

    def open(self) -> None:
        """Anyone may."""

    def invoke(self, command: int, params: list[Param]) -> None:
        if command == 0:
            require_kinds(params, Kind.MEMREF_OUTPUT)
            if params[0].room != fuses.UID_BYTES:
                raise TeeRefusal(Result.BAD_PARAMETERS)
            # Words 1 and 2 on every part, also on the 8MP, whose id Linux reads from words 2 and 3.
            params[0].write(self._read(0, 1) + self._read(0, 2))
        elif command == 1:
            require_kinds(params, Kind.VALUE_INPUT, Kind.VALUE_OUTPUT)
            params[1].a = params[1].b = 0
            params[1].a = int.from_bytes(self._read(params[0].a, params[0].b), "little")
        else:
            raise TeeRefusal(Result.BAD_PARAMETERS)

    def spoil(self, command: int, params: list[Param]) -> None:
        """Nothing."""

    def _read(self, bank: int, word: int) -> bytes:
        content = self._chip.read_fuses()
        offset = (bank * WORDS_PER_BANK + word) * WORD_BYTES
        if word >= WORDS_PER_BANK or offset >= len(content):
            raise TeeRefusal(Result.BAD_PARAMETERS)
        return content[offset : offset + WORD_BYTES]


class DigprogPta:
    """The part and revision register."""

    def __init__(self, chip: silicon.Chip) -> None:
        self._chip = chip

    def open(self) -> None:
        """Anyone may."""

    def invoke(self, command: int, params: list[Param]) -> None:
        """Any command number does."""
        require_kinds(params, Kind.VALUE_OUTPUT)
        make = self._chip.read_make()
        major, minor = (int(part) for part in make.revision.split("."))
        params[0].a, params[0].b = DIGPROG[make.part] | major << 4 | minor, 0

    def spoil(self, command: int, params: list[Param]) -> None:
        """Nothing."""
