"""The PKCS#11 backend over a real token in software: wrong tokens, wrong PINs, planted keys, lost mechanisms."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareBusy, HardwareGone, NotMine, Tampered
from mpagent.hal.pkcs11 import Pkcs11Parts, credential, faults, objects, open_pkcs11
from mpagent.hal.pkcs11.keys import read_record
from mpagent.hal.pkcs11.seal import Pkcs11Sealer
from mpagent.hal.pkcs11.token import Token
from mpsim.shelf import MemoryShelf
from mpsim.softhsm import MODULE, PIN, SoftHsm
from mpwire import p256
from mpwire.secret import Secret
from tests.contract.rigs import check_signature
from tests.contract.rigs.pkcs11 import WITHOUT_GCM

DEK = Secret(bytes(range(32)))


@pytest.fixture
def token(tmp_path: Path) -> SoftHsm:
    made = SoftHsm(tmp_path / "token")
    made.initialize()
    made.insert()
    return made


@pytest.fixture
def parts(token: SoftHsm) -> Iterator[Pkcs11Parts]:
    with open_on(token) as opened:
        yield opened


def open_on(token: SoftHsm, shelf: MemoryShelf | None = None, **more: Any) -> Pkcs11Parts:
    return open_pkcs11(MODULE, token.label, token.pin_file, shelf or MemoryShelf(), **more)


def find_keys(token: Token, label: str) -> list[Any]:
    """Everything in the token under this label."""
    return token.find("looking", {token.p11.Attribute.LABEL: label})


def destroy(token: Token, *found: Any) -> None:
    for one in found:
        token.run("destroying", lambda _session, one=one: one.destroy())


# Which token


def test_image_without_the_module_has_no_such_part(token: SoftHsm, tmp_path: Path) -> None:
    with pytest.raises(HardwareAbsent, match="no PKCS#11 module"):
        open_pkcs11(tmp_path / "libckteec.so.0", "mpagent", token.pin_file, MemoryShelf())


@pytest.mark.parametrize("content", [b"", b"not a library\n"])
def test_module_that_is_no_library_is_broken_and_not_absent(token: SoftHsm, tmp_path: Path, content: bytes) -> None:
    module = tmp_path / "libckteec.so.0"
    module.write_bytes(content)
    with pytest.raises(HardwareGone, match="does not start") as gone:
        open_pkcs11(module, "mpagent", token.pin_file, MemoryShelf())
    assert not isinstance(gone.value, HardwareAbsent)
    assert "/dev/tee0" in gone.value.advice


def test_folder_in_place_of_the_module_is_broken(token: SoftHsm, tmp_path: Path) -> None:
    with pytest.raises(HardwareGone, match="cannot be read"):
        open_pkcs11(tmp_path, "mpagent", token.pin_file, MemoryShelf())


def test_slot_without_a_token_of_the_label_is_absent_and_says_what_is_there(token: SoftHsm) -> None:
    with pytest.raises(HardwareAbsent, match=r"labelled 'other'; initialised here: 'mpagent'"):
        open_pkcs11(MODULE, "other", token.pin_file, MemoryShelf())


def test_token_that_was_never_initialised_is_absent(tmp_path: Path) -> None:
    """Its label is blank; an empty label must not find it either."""
    blank = SoftHsm(tmp_path / "blank")
    blank.insert()
    for label in ("mpagent", ""):
        with pytest.raises(HardwareAbsent, match="initialised here: none"):
            open_pkcs11(MODULE, label, blank.pin_file, MemoryShelf())


def test_two_tokens_of_one_label_are_never_guessed_between(token: SoftHsm) -> None:
    token.initialize()
    token.insert()
    with pytest.raises(ConfigWrong, match="2 PKCS#11 tokens are labelled 'mpagent'"):
        open_on(token)
    import pkcs11

    serials = sorted(bytes(one.serial) for one in pkcs11.lib(str(MODULE)).get_tokens(token_label="mpagent"))
    blobs = []
    for serial in serials:
        with open_on(token, serial=serial) as opened:
            blobs.append(opened.sealer.seal(DEK))
    for serial, mine, other in zip(serials, blobs, reversed(blobs), strict=True):
        with open_on(token, serial=serial) as opened:
            assert opened.sealer.unseal(mine) == DEK
            with pytest.raises(NotMine):
                opened.sealer.unseal(other)


def test_optee_is_told_by_its_token_and_nothing_else(parts: Pkcs11Parts) -> None:
    """Manufacturer and model as optee_os has them; a label can be anybody's."""
    real = parts.token
    for maker, model, name in (
        ("Linaro", "OP-TEE TA", "optee"),
        ("Linaro", "SoftHSM v2", "pkcs11"),
        ("SoftHSM project", "OP-TEE TA", "pkcs11"),
    ):
        info = SimpleNamespace(label="OP-TEE", manufacturer_id=maker, model=model)
        assert Pkcs11Sealer(Token(real.p11, info, None), 1).name == name
    assert parts.sealer.name == "pkcs11"


# PIN


def test_wrong_pin_costs_one_try_and_is_not_repeated(token: SoftHsm) -> None:
    token.pin_file.write_text("wrong-pin\n")
    with pytest.raises(ConfigWrong, match="is not that of the PKCS#11 token 'mpagent'; tries are running low") as wrong:
        open_on(token)
    assert "wrong-pin" not in f"{wrong.value} {wrong.value.detail}"
    assert wrong.value.__cause__ is None
    token.pin_file.write_text(PIN)
    with open_on(token) as opened:
        assert opened.sealer.unseal(opened.sealer.seal(DEK)) == DEK


@pytest.mark.parametrize(
    "flags, text",
    [
        (0, "no user PIN yet"),
        (credential.PIN_SET | credential.LOCKED | credential.FINAL_TRY, "is locked"),
        (credential.PIN_SET | credential.FINAL_TRY | credential.COUNT_LOW, "one PIN try left, which is not spent"),
    ],
)
def test_last_try_is_never_burnt(flags: int, text: str) -> None:
    """SoftHSM2 locks no PIN, so the flags are given by hand here."""
    with pytest.raises(HardwareGone, match=text) as gone:
        credential.check_tries(flags, "mpagent")
    assert gone.value.advice and not gone.value.advice.endswith(".")


def test_tries_that_are_left_may_be_used() -> None:
    credential.check_tries(credential.PIN_SET, "mpagent")
    credential.check_tries(credential.PIN_SET | credential.COUNT_LOW, "mpagent")


@pytest.mark.parametrize(
    "flags, text",
    [
        (credential.LOCKED | credential.FINAL_TRY, "the PIN is locked now"),
        (credential.FINAL_TRY | credential.COUNT_LOW, "one try is left, and the next start will not spend it"),
        (credential.COUNT_LOW, "tries are running low"),
        (0, "the token does not say how many tries are left"),
    ],
)
def test_wrong_pin_tells_what_is_left(flags: int, text: str) -> None:
    assert credential.describe_tries(flags) == text


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 256, b"x" * 256 + b"\n", b"\xff\xfe"])
def test_file_that_holds_no_pin_is_not_tried(token: SoftHsm, content: bytes) -> None:
    token.pin_file.write_bytes(content)
    with pytest.raises(ConfigWrong, match="does not hold a PIN"):
        open_on(token)


def test_absent_pin_file_is_named(token: SoftHsm) -> None:
    token.pin_file.unlink()
    with pytest.raises(ConfigWrong, match=r"pin_file .* cannot be read: No such file"):
        open_on(token)


def test_pin_is_read_only_when_there_is_a_token_to_use_it_on(token: SoftHsm) -> None:
    token.pin_file.unlink()
    with pytest.raises(HardwareAbsent):
        open_pkcs11(MODULE, "other", token.pin_file, MemoryShelf())


def test_one_newline_is_no_part_of_a_pin(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    for content, pin in ((b"1234", b"1234"), (b"1234\n", b"1234"), (b"1234\n\n", b"1234\n"), (b" 12 \n", b" 12 ")):
        path.write_bytes(content)
        assert credential.read_pin(path) == Secret(pin)


# Keys in the token


def test_every_key_was_born_in_the_token_and_never_leaves_it(parts: Pkcs11Parts) -> None:
    p11, session = parts.token.p11, parts.token
    parts.sealer.seal(DEK)
    objects.find_or_make_mac(session, objects.find_or_make_root(session))
    parts.keyring.find_or_make("sign")
    wrapper = session.run("wrapping", lambda s: s.generate_key(p11.KeyType.AES, 256))
    for label in ("mpagent-root", "mpagent-root-mac", "mpagent-key-sign"):
        (key,) = (k for k in find_keys(session, label) if k.object_class is not p11.ObjectClass.PUBLIC_KEY)
        told = {word: key[getattr(p11.Attribute, word)] for word in objects._TOLD | objects._BORN_HERE}
        assert told == objects._TOLD | objects._BORN_HERE
        with pytest.raises(p11.AttributeSensitive):
            key[p11.Attribute.VALUE]
        with pytest.raises(p11.KeyUnextractable):
            wrapper.wrap_key(key, mechanism=p11.Mechanism.AES_KEY_WRAP_PAD)


def test_another_program_sees_the_keys_as_we_say_they_are(token: SoftHsm) -> None:
    """OpenSC's tool, over the same token."""
    with open_on(token) as opened:
        opened.sealer.seal(DEK)
        opened.keyring.find_or_make("sign")
    command = ["pkcs11-tool", "--module", str(MODULE), "--token-label", token.label, "--login", "--pin", PIN, "-O"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    private, secret, public = (listed[listed.index(kind) :] for kind in ("Private Key", "Secret Key", "Public Key"))
    for found, label in ((private, "mpagent-key-sign"), (secret, "mpagent-root")):
        assert label in found
        assert (
            "sensitive, always sensitive, never extractable, local" in found.partition("Access:")[2].partition("\n")[0]
        )
    assert "256 bits" in public and "mpagent-key-sign" in public


def plant_secret(token: Token, label: str, **changed: Any) -> None:
    """An AES key whose value the planter knows; what it may set, it sets as ours."""
    p11 = token.p11
    attributes = {
        "CLASS": p11.ObjectClass.SECRET_KEY,
        "KEY_TYPE": p11.KeyType.AES,
        "VALUE": bytes(32),
        "LABEL": label,
        "ID": bytes(16),
        "TOKEN": True,
        "PRIVATE": True,
        "SENSITIVE": True,
        "EXTRACTABLE": False,
        "ENCRYPT": True,
        "DECRYPT": True,
        **changed,
    }
    named = {getattr(p11.Attribute, word): value for word, value in attributes.items()}
    token.run("planting", lambda session: session.create_object(named))


@pytest.mark.parametrize("changed", [{}, {"EXTRACTABLE": True}, {"SENSITIVE": False}, {"PRIVATE": False}])
def test_planted_wrapping_key_is_never_used(parts: Pkcs11Parts, changed: Any) -> None:
    """T-440 Planted key: who had the PIN for a minute puts a key he knows where ours is looked for."""
    plant_secret(parts.token, "mpagent-root", **changed)
    (planted,) = find_keys(parts.token, "mpagent-root")
    blob = parts.sealer.seal(DEK)
    parts.keyring.find_or_make("sign")
    assert parts.sealer.unseal(blob) == DEK
    mine = objects.find_root(parts.token)
    assert mine is not None and mine.key != planted
    with pytest.raises(NotMine):
        parts.sealer.unseal(blob.replace(mine.ident, bytes(16)))
    with pytest.raises(InvalidTag):
        AESGCM(bytes(32)).decrypt(blob[21:33], blob[33:], blob[:21])


def generate(token: Token, label: str, bits: int, key_type: str = "AES", ident: bytes = bytes(16)) -> None:
    p11 = token.p11
    kind = getattr(p11.KeyType, key_type)
    token.run(
        "planting",
        lambda session: session.generate_key(
            kind,
            bits,
            id=ident,
            label=label,
            store=True,
            mechanism=getattr(p11.Mechanism, f"{key_type}_KEY_GEN"),
            template={p11.Attribute.EXTRACTABLE: False, p11.Attribute.VALUE_LEN: bits // 8},
        ),
    )


@pytest.mark.parametrize(
    "bits, kind, ident", [(128, "AES", bytes(16)), (256, "GENERIC_SECRET", bytes(16)), (256, "AES", b"short")]
)
def test_odd_key_under_our_label_is_never_used(parts: Pkcs11Parts, bits: int, kind: str, ident: bytes) -> None:
    generate(parts.token, "mpagent-root", bits, kind, ident)
    blob = parts.sealer.seal(DEK)
    assert ident.ljust(16, b"-") not in blob
    assert parts.sealer.unseal(blob) == DEK


def test_second_root_is_not_chosen_from(parts: Pkcs11Parts) -> None:
    blob = parts.sealer.seal(DEK)
    generate(parts.token, "mpagent-root", 256)
    with pytest.raises(Tampered, match="2 keys mpagent-root"):
        parts.sealer.unseal(blob)


def plant_pair(token: Token, label: str, key: p256.SoftKey) -> None:
    """A pair made elsewhere, imported with the attributes of ours."""
    p11 = token.p11
    attribute = p11.Attribute
    both = {
        attribute.KEY_TYPE: p11.KeyType.EC,
        attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107"),
        attribute.LABEL: f"mpagent-key-{label}",
        attribute.ID: bytes(16),
        attribute.TOKEN: True,
    }
    public = {
        **both,
        attribute.CLASS: p11.ObjectClass.PUBLIC_KEY,
        attribute.EC_POINT: b"\x04\x41" + key.public_key(),
    }
    private = {
        **both,
        attribute.CLASS: p11.ObjectClass.PRIVATE_KEY,
        attribute.VALUE: key.to_scalar().reveal(),
        attribute.PRIVATE: True,
        attribute.SENSITIVE: True,
        attribute.EXTRACTABLE: False,
        attribute.SIGN: True,
        attribute.DERIVE: True,
    }
    token.run("planting", lambda session: (session.create_object(public), session.create_object(private)))


def test_planted_device_key_is_never_said(parts: Pkcs11Parts) -> None:
    """T-441 Planted device key: a pair with a known private half, imported under our label."""
    planted = p256.SoftKey.generate()
    plant_pair(parts.token, "sign", planted)
    key = parts.keyring.find_or_make("sign")
    assert key.public_key() != planted.public_key()
    check_signature(key, b"message")


def test_record_that_names_a_planted_key_is_refused(parts: Pkcs11Parts) -> None:
    """T-441 The shelf is rewritten as well: the pair proves itself, and is still not born in the token."""
    planted, shelf = p256.SoftKey.generate(), MemoryShelf()
    open_keyring_anew(parts, shelf).find_or_make("sign")
    plant_pair(parts.token, "sign", planted)
    blob = shelf.blobs["pkcs11-key-sign"]
    before = {"pkcs11-key-sign": blob[:20] + bytes(16) + planted.public_key()}
    shelf.blobs = dict(before)
    with pytest.raises(Tampered, match="CKA_LOCAL is False"):
        open_keyring_anew(parts, shelf).find_or_make("sign")
    assert shelf.blobs == before


def test_second_pair_is_not_chosen_from(parts: Pkcs11Parts) -> None:
    """Born in the token like ours, by another program, while the shelf was lost."""
    keyring = parts.keyring
    keyring.find_or_make("sign"), keyring._generate("sign")
    with pytest.raises(Tampered, match="2 pairs mpagent-key-sign"):
        open_keyring_anew(parts, MemoryShelf()).find_or_make("sign")


def open_keyring_anew(parts: Pkcs11Parts, shelf: MemoryShelf | None = None) -> Any:
    """A keyring that found nothing yet, as after a restart."""
    return Pkcs11Parts(parts.token, shelf if shelf is not None else parts.shelf).keyring


def test_public_half_of_another_key_is_found_out(parts: Pkcs11Parts) -> None:
    """T-442 Exchanged public half: the issuer would encrypt to a key whose private half a thief has."""
    thief = p256.SoftKey.generate().public_key()
    shelf = MemoryShelf()
    Pkcs11Parts(parts.token, shelf).keyring.find_or_make("kem")
    record = read_record(shelf.blobs["pkcs11-key-kem"])
    assert record is not None
    shelf.blobs["pkcs11-key-kem"] = shelf.blobs["pkcs11-key-kem"].replace(record.point, thief)
    with pytest.raises(Tampered, match="does not belong to this public half"):
        open_keyring_anew(parts, shelf).find_or_make("kem")
    attribute = parts.token.p11.Attribute
    for point in (b"\x04\x41" + thief, b"\x04\x41\x04" + bytes(64), b"\x04\x02\x05\x00"):
        (old,) = parts.token.find("looking", {attribute.CLASS: parts.token.p11.ObjectClass.PUBLIC_KEY})
        template = {
            word: old[word] for word in (attribute.CLASS, attribute.KEY_TYPE, attribute.EC_PARAMS, attribute.ID)
        }
        template |= {attribute.LABEL: "mpagent-key-kem", attribute.TOKEN: True, attribute.EC_POINT: point}
        destroy(parts.token, old)
        parts.token.run("planting", lambda session, template=template: session.create_object(template))
        with pytest.raises(Tampered, match="public half"):
            open_keyring_anew(parts, MemoryShelf()).find_or_make("kem")


def test_swapped_records_do_not_swap_keys(parts: Pkcs11Parts) -> None:
    """A thief swaps files so that the key everybody sees sign becomes the one a Grant is encrypted to."""
    shelf = MemoryShelf()
    keyring = open_keyring_anew(parts, shelf)
    keyring.find_or_make("sign"), keyring.find_or_make("kem")
    swapped = {"pkcs11-key-sign": shelf.blobs["pkcs11-key-kem"], "pkcs11-key-kem": shelf.blobs["pkcs11-key-sign"]}
    shelf.blobs = dict(swapped)
    for label in ("sign", "kem"):
        with pytest.raises(Tampered, match="has 0 such keys"):
            open_keyring_anew(parts, shelf).find_or_make(label)
    assert shelf.blobs == swapped


def test_vanished_key_is_found_and_never_replaced(parts: Pkcs11Parts) -> None:
    """T-443 Key destroyed in the token: a new one made silently would look like a clone to the issuer."""
    shelf = MemoryShelf()
    open_keyring_anew(parts, shelf).find_or_make("sign")
    before = dict(shelf.blobs)
    destroy(parts.token, *find_keys(parts.token, "mpagent-key-sign"))
    with pytest.raises(Tampered, match="has 0 such keys"):
        open_keyring_anew(parts, shelf).find_or_make("sign")
    assert shelf.blobs == before
    assert find_keys(parts.token, "mpagent-key-sign") == []


def test_shared_secret_is_not_left_in_the_token(parts: Pkcs11Parts) -> None:
    key = parts.keyring.find_or_make("kem")
    for _ in range(3):
        key.ecdh(p256.SoftKey.generate().public_key())
    p11 = parts.token.p11
    assert parts.token.find("looking", {p11.Attribute.KEY_TYPE: p11.KeyType.GENERIC_SECRET}) == []


def test_token_initialised_anew_is_another_token(token: SoftHsm) -> None:
    """Same label, same slot, and nothing of before: neither replaced silently nor called damage."""
    shelf = MemoryShelf()
    with open_on(token, shelf) as opened:
        blob, public = opened.sealer.seal(DEK), opened.keyring.find_or_make("sign").public_key()
    before = dict(shelf.blobs)
    shutil.rmtree(token.tokens)
    token.tokens.mkdir()
    token.initialize()
    token.insert()
    for fresh in (True, False):
        with open_on(token, shelf) as opened:
            with pytest.raises(NotMine):
                opened.sealer.unseal(blob)
            with pytest.raises(NotMine):
                opened.keyring.find_or_make("sign")
            if fresh:
                assert opened.keyring.find_or_make("kem").public_key() != public
    assert {name: shelf.blobs[name] for name in before} == before


# Mechanisms


def test_blob_of_a_mechanism_the_token_lost_says_so_and_opens_when_it_is_back(token: SoftHsm) -> None:
    with open_on(token) as opened:
        blob = opened.sealer.seal(DEK)
    token.offer(WITHOUT_GCM)
    token.insert()
    with open_on(token) as opened:
        with pytest.raises(HardwareGone, match="sealed with CKM_AES_GCM, and the token no longer offers CKM_AES_GCM"):
            opened.sealer.unseal(blob)
        poorer = opened.sealer.seal(DEK)
        assert opened.sealer.unseal(poorer) == DEK
    token.offer(None)
    token.insert()
    with open_on(token) as opened:
        assert opened.sealer.unseal(blob) == DEK
        assert opened.sealer.unseal(poorer) == DEK


def test_token_that_cannot_seal_or_keep_keys_is_absent_until_it_once_could(token: SoftHsm) -> None:
    """The first is another part of the board, and the next one is tried; the second is a fault."""
    token.offer(["CKM_SHA256", "CKM_AES_KEY_GEN"])
    token.insert()
    with open_on(token) as opened:
        with pytest.raises(HardwareAbsent, match=r"cannot seal: it does not offer CKM_AES_CBC"):
            _ = opened.sealer
        with pytest.raises(HardwareAbsent, match=r"cannot keep device keys: .*CKM_EC_KEY_PAIR_GEN"):
            _ = opened.keyring
        objects.find_or_make_root(opened.token)
        for part in ("sealer", "keyring"):
            with pytest.raises(HardwareGone, match="does not offer") as gone:
                getattr(opened, part)
            assert not isinstance(gone.value, HardwareAbsent)


def test_lost_authentication_key_is_tampering_and_not_replaced_on_the_way_to_open(token: SoftHsm) -> None:
    token.offer(WITHOUT_GCM)
    token.insert()
    with open_on(token) as opened:
        blob = opened.sealer.seal(DEK)
        destroy(opened.token, *find_keys(opened.token, "mpagent-root-mac"))
        with pytest.raises(Tampered, match="authenticates"):
            opened.sealer.unseal(blob)
        assert find_keys(opened.token, "mpagent-root-mac") == []


# Accidents


def test_emptied_slot_is_gone_and_not_another_token(token: SoftHsm) -> None:
    """A token pulled in the middle has no objects either: calling that NotMine would latch a good board."""
    shelf = MemoryShelf()
    with open_on(token, shelf) as opened:
        blob = opened.sealer.seal(DEK)
        key = opened.keyring.find_or_make("sign")
        kept = token.tokens.rename(token.folder / "pulled")
        for verb in (
            lambda: opened.sealer.unseal(blob),
            lambda: opened.sealer.seal(DEK),
            lambda: open_keyring_anew(opened, shelf).find_or_make("sign"),
            lambda: open_keyring_anew(opened, shelf).find_or_make("kem"),
            lambda: key.ecdh(key.public_key()),
        ):
            with pytest.raises(HardwareGone) as gone:
                verb()
            assert not isinstance(gone.value, HardwareAbsent)
    assert set(shelf.blobs) == {"pkcs11-key-sign"}
    shutil.rmtree(token.tokens, ignore_errors=True)
    kept.rename(token.tokens)
    token.insert()
    with open_on(token, shelf) as opened:
        assert opened.sealer.unseal(blob) == DEK
        assert opened.keyring.find_or_make("sign").public_key() == key.public_key()


class FailingToken(Token):
    """Every C_Decrypt ends as SoftHSM2 and others end for a wrong tag, whatever it is given."""

    def run(self, doing: str, verb: Any, *meaning: Any) -> Any:
        def refuse(_session: Any) -> None:
            raise self.p11.GeneralError

        return super().run(doing, refuse if doing == "unsealing" else verb, *meaning)


def test_token_that_opens_nothing_any_more_is_broken_and_the_blob_is_not(parts: Pkcs11Parts) -> None:
    """One return value for a wrong tag and for a broken token: NotMine would give up a good vault."""
    blob = parts.sealer.seal(DEK)
    failing = FailingToken(parts.token.p11, parts.token._info, parts.token._session)
    with pytest.raises(HardwareGone, match="refused while unsealing"):
        Pkcs11Sealer(failing, 1).unseal(blob)
    assert parts.sealer.unseal(blob) == DEK


# The library's clean-up of a search that failed complains of the same dead session, from a destructor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_module_that_was_shut_down_under_us_is_gone_at_every_verb_and_closes_quietly(token: SoftHsm) -> None:
    """Several verbs one after the other: 0.7 leaves its lock held when a search fails."""
    opened = open_on(token)
    sealer, key = opened.sealer, opened.keyring.find_or_make("sign")
    blob = sealer.seal(DEK)
    token.insert()
    for verb in (
        lambda: sealer.unseal(blob),
        lambda: sealer.seal(DEK),
        lambda: key.sign(b"message"),
        lambda: key.ecdh(key.public_key()),
        lambda: opened.keyring.find_or_make("kem"),
    ):
        with pytest.raises(HardwareGone, match="went away"):
            verb()
    opened.close()
    opened.close()


def test_two_openings_in_one_process_share_one_login(token: SoftHsm) -> None:
    with open_on(token) as first, open_on(token) as second:
        assert second.sealer.unseal(first.sealer.seal(DEK)) == DEK


@pytest.mark.parametrize(
    "name, kind, text",
    [
        ("SessionCount", HardwareBusy, "no free sessions"),
        ("DeviceMemory", HardwareBusy, "no free memory"),
        ("DeviceRemoved", HardwareGone, "went away while signing"),
        ("FunctionFailed", HardwareGone, "refused while signing"),
    ],
)
def test_each_refusal_has_a_meaning(parts: Pkcs11Parts, name: str, kind: type[Exception], text: str) -> None:
    """The classes of the library in use, so that a renamed one would show."""
    refusal = getattr(parts.token.p11, name)

    def refuse(_session: Any) -> None:
        raise refusal("as told")

    with pytest.raises(kind, match=text) as told:
        parts.token.run("signing", refuse)
    assert name in told.value.detail  # type: ignore[attr-defined]


def test_names_of_refusals_are_those_of_the_library(parts: Pkcs11Parts) -> None:
    for name in (*faults._FULL, *faults._GONE, *faults._DAMAGED, "PinIncorrect", "PinLocked", "UserAlreadyLoggedIn"):
        assert issubclass(getattr(parts.token.p11, name), RuntimeError)


LAZY = """
import sys
import mpagent.hal.pkcs11
assert "pkcs11" not in sys.modules
sys.modules["pkcs11"] = None
from pathlib import Path
from mpagent.errors import ConfigWrong
try:
    mpagent.hal.pkcs11.open_pkcs11(Path("/nonexistent"), "mpagent", Path("/nonexistent"), None)
except ConfigWrong as wrong:
    print(wrong)
"""


def test_library_is_imported_late_and_its_absence_is_said() -> None:
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", LAZY], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == ("the PKCS#11 backend is not installed here: install mpagent with its extra `pkcs11`\n"), (
        done.stderr
    )
