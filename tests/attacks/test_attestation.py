"""OP-TEE's attestation key: strangers, another OP-TEE, and a secure storage that was written anew."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpagent.errors import Refused
from mpissuer.ports import RegisteredKey
from mpserver.clock import SystemClock
from mpserver.keystore import LAST_HEAD, Keystore
from mpserver.office import Office
from mpserver.state import Places, State
from mpserver.store.lasthead import LastHeadFile
from mpsim.optee.attestation import reflash_storage
from mpsim.optee.bench import EmulatedTee
from tests.contract.rigs.attestation import AttestationRig
from tests.line import PRODUCT, Factory, Oem
from tests.mpsim.tee_bench import tee_of_board
from tests.rigged import RiggedDevice

LISTED = PRODUCT.replace('["mp", "tpm"]', '["optee"]').replace('["L"]', '["K"]')
ANY = 'optee_measurements = ["any"]\n'


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    """A closed board with an OP-TEE, powered on."""
    with tee_of_board(tmp_path / "rig") as made:
        yield made


def board_of(factory: Factory, tee: EmulatedTee, folder: Path) -> RiggedDevice:
    return RiggedDevice(factory, folder, AttestationRig(tee))


def register(oem: Oem, device: RiggedDevice) -> None:
    """What `mpserver key import` does with the record of this board's key."""
    with device.power() as board:
        material = board.attester.describe()
    last_head = LastHeadFile(oem.folder / "keys" / LAST_HEAD)
    keystore, clock = Keystore(oem.folder / "keys"), SystemClock()
    state = State(Places(oem.folder), "lab", clock, keystore, oem.authority, oem.writing, last_head)  # type: ignore[arg-type]
    Office(state).import_key(RegisteredKey(material.attester_id, "optee", material.rsa_public, "silicon"))


def test_attestation_key_nobody_registered_is_refused(
    tee: EmulatedTee, make_oem: Callable[..., Oem], make_factory: Callable[[Oem], Factory], tmp_path: Path
) -> None:
    """T-316 Stranger: an OP-TEE on a board of anybody's makes a key of its own, and signs whatever it is asked."""
    oem = make_oem(product='optee_keys = ["imported"]\n' + ANY + LISTED)
    device = board_of(make_factory(oem), tee, tmp_path / "device")
    with pytest.raises(Refused, match="attester-key"):
        device.enroll()
    assert oem.count("units") == 0

    register(oem, device)
    device.enroll()
    assert oem.rows("SELECT attester, grade FROM units") == [("optee", "K")]


def test_another_op_tee_than_listed_is_refused(
    tee: EmulatedTee, make_oem: Callable[..., Oem], make_factory: Callable[[Oem], Factory], tmp_path: Path
) -> None:
    """T-317 Changed OP-TEE: the right key signs, in an OP-TEE that the OEM did not list."""
    text = f'optee_keys = ["imported"]\noptee_measurements = ["{"00" * 32}"]\n{LISTED}'
    oem = make_oem(product=text)
    device = board_of(make_factory(oem), tee, tmp_path / "device")
    register(oem, device)
    before = oem.state()

    with pytest.raises(Refused, match="measurement"):
        device.enroll()

    assert oem.state() == before


def test_storage_written_anew_is_a_clone_until_it_is_reworked(
    tee: EmulatedTee, make_oem: Callable[..., Oem], make_factory: Callable[[Oem], Factory], tmp_path: Path
) -> None:
    """T-318 Second life: a finished board gets a new secure storage, so a new key and name, to be counted anew."""
    oem = make_oem(product='optee_keys = ["imported"]\n' + ANY + LISTED)
    factory = make_factory(oem)
    first = board_of(factory, tee, tmp_path / "first")
    register(oem, first)
    first.enroll()
    units = oem.rows("SELECT * FROM units")

    reflash_storage(tee.chip)
    tee.power_cycle()
    second = board_of(factory, tee, tmp_path / "second")
    register(oem, second)
    with pytest.raises(Refused, match="clone"):
        second.enroll()

    assert oem.rows("SELECT * FROM units") == units and oem.granted() == 1
    assert [kind for kind, _, _ in oem.alarms()] == ["clone"]


def test_product_that_lists_nothing_takes_no_op_tee(
    tee: EmulatedTee, make_oem: Callable[..., Oem], make_factory: Callable[[Oem], Factory], tmp_path: Path
) -> None:
    """T-319 Mix-up: rules left out of the product file are the strict ones."""
    oem = make_oem(product=LISTED)
    device = board_of(make_factory(oem), tee, tmp_path / "device")
    register(oem, device)
    with pytest.raises(Refused, match="attester-key"):
        device.enroll()
    assert oem.count("units") == 0
