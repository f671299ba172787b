"""The same story on a board with a PIV card, and on one whose OP-TEE attests: graded K, named by what they proved."""

from contextlib import ExitStack
from pathlib import Path

from mpagent.hal.ports import Provenance
from mpagent.record import Stage
from mpwire import optee, registry
from mpwire.ueid import make_ueid
from tests.attacks.forge import claims_of
from tests.contract.rigs.attestation import make_attestation
from tests.contract.rigs.card import AUTHORITY, make_card_board
from tests.line import PRODUCT, STATIC_HEX, Factory, Oem
from tests.rigged import RiggedDevice

CARD_PRODUCT = PRODUCT.replace('["mp", "tpm"]', '["card"]').replace('["L"]', '["K"]')
OPTEE_PRODUCT = PRODUCT.replace('["mp", "tpm"]', '["optee"]')


def test_a_card_board_enrolls_and_is_named_by_its_card(tmp_path: Path) -> None:
    product = f"card_roots = ['''{AUTHORITY.pem}''']\n{CARD_PRODUCT}"
    with make_card_board(tmp_path / "rig") as rig, ExitStack() as stack:
        oem = Oem(tmp_path / "oem", product=product)
        device = RiggedDevice(Factory(tmp_path, oem, stack), tmp_path / "device", rig)

        assert device.enroll().stage is Stage.DONE

        claims = claims_of(device.line.heard[1])
        assert claims.hardware_ids.keys() == {"imx-uid", "card-key"}
        assert claims.ueid == make_ueid("card", claims.hwmodel.decode(), claims.hardware_ids["card-key"])
        assert claims.provenance[registry.CLAIM_UEID] == Provenance.ATTESTER
        assert oem.rows("SELECT attester, grade FROM units") == [("card", "K")]
        assert device.secrets()["licence"].hex() == STATIC_HEX
        rig.power_cycle()
        assert device.secrets()["licence"].hex() == STATIC_HEX
        oem.stop()


def test_an_op_tee_board_enrolls_on_first_use_in_the_lab(tmp_path: Path) -> None:
    product = f'optee_keys = ["first-use"]\noptee_measurements = ["any"]\n{OPTEE_PRODUCT}'
    with make_attestation(tmp_path / "rig") as rig, ExitStack() as stack:
        oem = Oem(tmp_path / "oem", product=product)
        device = RiggedDevice(Factory(tmp_path, oem, stack), tmp_path / "device", rig)

        assert device.enroll().stage is Stage.DONE

        claims = claims_of(device.line.heard[1])
        with device.power() as board:
            public = board.attester.describe().rsa_public
        assert public is not None and claims.hardware_ids["optee-key"] == claims.attester_id == optee.key_id(public)
        assert claims.ueid == make_ueid("optee", claims.hwmodel.decode(), claims.attester_id)
        assert oem.rows("SELECT attester, grade FROM units") == [("optee", "L")]
        oem.stop()
