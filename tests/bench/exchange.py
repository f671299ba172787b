"""One device as bytes: what it says in an enrollment, made as fast as Python can, with nothing kept on a disk.

The board is real where it matters to the issuer: the simulated chip's class key signs, device keys are fresh, the
evidence is mpagent's own. What a device does for itself alone (vault, journal, checking the issuer) is left out.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from mpagent.hal.ports import Attestation, Attester, AttesterMaterial, Board, LifeCycle, Provenance, SocFacts
from mpagent.image import Image, WantedSlot
from mpagent.proof import write_hello, write_proof
from mpsim import fuses
from mpsim.backend import open_attester, open_sealer
from mpsim.board import BoardPlan, make_board
from mpwire import labels, p256, registry
from mpwire.cose import write_sign1
from mpwire.hpke import open_base
from mpwire.limits import CHALLENGE_MAX_BYTES, CLOSED_MAX_BYTES, GRANT_MAX_BYTES
from mpwire.messages.grant import CONTENTS, GRANT, RECEIPT, Receipt, SlotReceipt, make_check_value, make_grant_info
from mpwire.messages.plain import CHALLENGE, CLOSED
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.trust import read_signed

LOCAL: Final = Secret(bytes(32))


class Keys:
    """ports.Keyring in memory."""

    def __init__(self) -> None:
        self._found: dict[str, SoftKey] = {}

    def find_or_make(self, label: str) -> SoftKey:
        """The key of this label."""
        if label not in self._found:
            self._found[label] = SoftKey.generate()
        return self._found[label]


class Soc:
    """ports.Soc of a closed part with its own id."""

    def __init__(self) -> None:
        who = Provenance.KERNEL
        provenance = {"uid": who, "life_cycle": Provenance.SECURE_WORLD, "srk_hash": who}
        self._facts = SocFacts("imx8mm", os.urandom(8), LifeCycle.CLOSED, fuses.srk_hash_of("lab"), provenance)

    def read_facts(self) -> SocFacts:
        """The same on every call."""
        return self._facts


class QuickAttester:
    """The chip's attester, which describes itself once: every board of a class gives the same answer."""

    def __init__(self, chip: Attester) -> None:
        self.alg, self._chip, self._material = chip.alg, chip, chip.describe()

    def describe(self) -> AttesterMaterial:
        """As the chip said."""
        return self._material

    def attest(self, message: bytes) -> Attestation:
        """By the chip."""
        return self._chip.attest(message)


class Maker:
    """Makes devices of one class."""

    def __init__(self, chip: Path, root: bytes, grant_key: bytes, slots: tuple[tuple[str, str], ...]) -> None:
        if not chip.exists():
            make_board(chip, BoardPlan(closed=True))
        self._attester, self._sealer = QuickAttester(open_attester(chip / "chip")), open_sealer(chip / "chip")
        self.issuer_hash = hashlib.sha256(p256.write_spki(grant_key)).digest()
        wanted = tuple(WantedSlot(name, kind, "sealed") for name, kind in slots)
        self.image = Image("lab", "camera", (root,), (), wanted, 0, swname="provisioning", swversion="1.2.3")

    def make(self) -> "Exchange":
        """A board that nobody has seen, with its keys made and its Hello written."""
        return Exchange(self, Board(Soc(), self._attester, self._sealer, Keys()))


class Exchange:
    """One enrollment: `hello`, then `prove`, `take`, `end` with what was heard."""

    def __init__(self, maker: Maker, board: Board) -> None:
        self._maker, self._board = maker, board
        self.hello, self.ueid = write_hello(board, maker.image, os.urandom(16), os.urandom(8))
        for label in (labels.DEVICE_SIGN, labels.DEVICE_KEM, labels.certificate_key("identity")):
            board.keyring.find_or_make(label)

    def prove(self, challenge: bytes) -> bytes:
        """The Proof."""
        read = CHALLENGE.decode(challenge, CHALLENGE_MAX_BYTES)
        return write_proof(self._board, self._maker.image, "0.1.0", self.hello, challenge, read)

    def take(self, proof_evidence_hash: bytes, grant: bytes) -> bytes:
        """The Receipt over an opened Grant."""
        head = GRANT.decode(read_signed(grant, labels.TYP_GRANT).payload, GRANT_MAX_BYTES)
        info = make_grant_info(head, proof_evidence_hash, self._maker.issuer_hash)
        key = self._board.keyring.find_or_make(labels.DEVICE_KEM)
        contents = CONTENTS.decode(
            open_base(key, head.encapsulated, info, b"", head.ciphertext).reveal(), GRANT_MAX_BYTES
        )
        slots = [
            SlotReceipt(
                one.name,
                "sim",
                one.version,
                make_check_value(contents.check_key, one.name, one.version, one.value or LOCAL),
            )
            for one in contents.slots
        ]
        receipt = Receipt(
            phase="sealed",
            grant_digest=hashlib.sha256(grant).digest(),
            ueid=self.ueid,
            slots=tuple(slots),
            rollback="none",
            closed_proof="mp-key",
            life_cycle=3,
        )
        headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_RECEIPT}
        sign = self._board.keyring.find_or_make(labels.DEVICE_SIGN).sign
        self._receipt = write_sign1(headers, RECEIPT.encode(receipt), labels.AAD_RECEIPT, sign)
        return self._receipt

    def end(self, closed: bytes) -> None:
        """Raises ValueError unless our receipt was closed."""
        if CLOSED.decode(closed, CLOSED_MAX_BYTES).receipt_digest != hashlib.sha256(self._receipt).digest():
            raise ValueError("the issuer closed something else")
