"""The token that the issuer's keys are in: exchanged, pulled out, robbed of keys, given others, or asked too much.

All of it on a real token in software (SoftHSM2), by somebody who has its PIN or holds it in his hand.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from mpissuer.errors import Refused
from mpserver.authority import IssuerAuthority, open_safe
from mpserver.commands.hsm import read_points
from mpserver.errors import SetUp, StoreDamaged
from mpserver.founding import STAGING, found
from mpserver.token import objects, policy
from mpserver.token.audit import Expected, Finding, audit
from mpserver.token.faults import TokenAway
from mpserver.token.pool import LOOK_AGAIN_S, SESSIONS_MAX, Pool, Session
from mpserver.token.preparation import choose_token, name_token
from mpserver.token.settings import read_settings, write_settings
from mpwire.p256 import SoftKey, verify
from mpwire.secret import Secret
from tests.mpserver.tokens import LABEL, NOW, TokenOffice, labels_in, safe_of

JOB = "lot-1"
VALUE = Secret(b"thirty-two bytes of a value.....")


@pytest.fixture
def office(tmp_path: Path) -> TokenOffice:
    """An issuer whose keys are in a token."""
    return TokenOffice(tmp_path / "oem").found()


@pytest.fixture
def authority(office: TokenOffice) -> IssuerAuthority:
    """Its server, with a job and a secret in the vault."""
    made = office.open()
    made.safe.make_job_key(JOB)
    made.safe.vault.keep("mp", VALUE)
    return made


@pytest.fixture
def stranger(office: TokenOffice, authority: IssuerAuthority) -> Iterator[Session]:
    """Somebody with the PIN."""
    with office.stranger() as session:
        yield session


def look(office: TokenOffice, *jobs: str) -> dict[str, str]:
    """What `hsm audit` finds wrong, by label, with these jobs open."""
    return {one.label: one.trouble for one in list_all(office, *jobs) if one.trouble}


def list_all(office: TokenOffice, *jobs: str) -> list[Finding]:
    """Every line of the audit."""
    points = dict(read_points(office.store))
    return audit(Pool(read_settings(office.store)), Expected(points, dict.fromkeys(jobs, "open")))


def plant(session: Session, label: str, ident: bytes, **changes: Any) -> Any:
    """A secret known to him, as much like ours as a token lets him make it."""
    template = objects.write_template(
        session, Secret(b"k" * 32), "SIGN", {**policy.CLOSED, "LABEL": label, "ID": ident, **changes}
    )
    return session.raw.create_object(template)


def test_a_key_smuggled_in_place_of_ours_is_not_used(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session
) -> None:
    """T-600 Smuggled key: the root of derived keys is replaced by an imported one, which its maker knows."""
    before = authority.safe.mac(b"label")
    objects.destroy(stranger, policy.SYMMETRIC)
    plant(stranger, f"{policy.PREFIX}symmetric", policy.make_id(stranger.issuer, "symmetric"))

    for use in (lambda: authority.safe.mac(b"label"), office.open):
        with pytest.raises(StoreDamaged, match=r"mpserver/symmetric in the token is not used: CKA_LOCAL is false"):
            use()
    assert look(office, JOB) == {"mpserver/symmetric": "CKA_LOCAL is false, and has to be true"}
    assert len(before) == 32


@pytest.mark.parametrize("change", ["EXTRACTABLE", "SENSITIVE"])
def test_an_extractable_key_under_our_label_is_not_used(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session, change: str
) -> None:
    """T-600 Smuggled key: made in the token, but so that it can be read; a copy of it signs elsewhere."""
    p11 = stranger.p11
    objects.destroy(stranger, "grant")
    attributes = {p11.Attribute.MODIFIABLE: False, getattr(p11.Attribute, change): change == "EXTRACTABLE"}
    curve = stranger.raw.create_domain_parameters(p11.KeyType.EC, {p11.Attribute.EC_PARAMS: objects.CURVE}, local=True)
    curve.generate_keypair(
        id=policy.make_id(stranger.issuer, "grant"),
        label=f"{policy.PREFIX}grant",
        store=True,
        capabilities=p11.MechanismFlag.SIGN | p11.MechanismFlag.VERIFY,
        mechanism=p11.Mechanism.EC_KEY_PAIR_GEN,
        private_template=attributes,
    )
    for use in (lambda: authority.sign("grant", b"x"), office.open):
        with pytest.raises(StoreDamaged, match=f"mpserver/grant in the token is not used: CKA_{change} is"):
            use()
    assert f"CKA_{change}" in look(office, JOB)["mpserver/grant"]


def test_a_second_key_under_our_label_stops_its_use(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session
) -> None:
    """T-601 Planted twin: which of two keys is meant cannot be told, so neither is used."""
    plant(stranger, f"{policy.PREFIX}symmetric", policy.make_id(stranger.issuer, "symmetric"))
    with pytest.raises(StoreDamaged, match="holds 2 keys mpserver/symmetric: somebody added"):
        office.open()
    assert list(look(office, JOB)) == ["mpserver/symmetric"]


@pytest.mark.parametrize("label", ["mpserver/spare", "backup", "", "mpserver/vault/other"])
def test_a_key_that_nobody_ordered_is_named(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session, label: str
) -> None:
    """T-601 Planted key: a door left open for later stands in the audit, whatever it is called."""
    plant(stranger, label, b"i" * 16)
    assert look(office, JOB) == {label: "it is no key of this issuer"}
    assert label.removeprefix("mpserver/vault/") not in authority.safe.vault.names()


@pytest.mark.parametrize("name", ["grant", "symmetric"])
def test_a_key_made_properly_by_somebody_else_is_not_ours(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session, name: str
) -> None:
    """T-602 Exchanged token: all labels, ids and attributes are right, and the keys are others."""
    objects.destroy(stranger, name)
    make = objects.make_secret if name == "symmetric" else objects.make_pair
    make(stranger, name)
    use = {"grant": lambda: authority.sign("grant", b"x"), "symmetric": lambda: authority.safe.mac(b"x")}[name]
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=rf"mpserver/{name} in the token is another than this issuer's"):
            use()
    with pytest.raises(StoreDamaged, match=r"another than this issuer's|does not belong to this root"):
        office.open()


def test_another_token_of_the_same_label_is_told_by_its_serial_number(office: TokenOffice) -> None:
    """T-602 Exchanged token: the CM's own token of that label gets neither our keys nor our PIN's tries."""
    authority = office.open()
    office.token.pull()
    office.token.initialize()
    with pytest.raises(TokenAway) as raised:
        authority.sign("head", b"x")
    assert "is another of that label: its serial number is" in raised.value.detail
    office.token.put_back()
    time.sleep(LOOK_AGAIN_S)
    verify(authority.public_key("head"), b"x", authority.sign("head", b"x"))


def test_a_token_that_was_pulled_is_not_taken_for_an_emptied_one(
    office: TokenOffice, authority: IssuerAuthority
) -> None:
    """T-603 Accident: the token is pulled out and put back. A slot without it has no keys either; no job has ended by
    that, no secret is gone, and the same process goes on once it is back."""
    blob, derived = authority.wrap(JOB, VALUE, b""), authority.derive(b"label", b"epoch")
    office.token.pull()
    assert authority.derive(b"label", b"epoch") == derived  # as each Hello asks: it costs no operation of the token
    vault = authority.safe.vault
    verbs: list[Callable[[], object]] = [
        *(lambda: authority.sign("grant", b"x"), lambda: authority.unwrap(JOB, blob, b"")),
        *(lambda: authority.safe.mac(b"x"), lambda: authority.safe.has_job_key(JOB), vault.names),
        *(lambda: vault.expand("mp", b""), lambda: vault.destroy("mp"), lambda: authority.safe.destroy_job_key(JOB)),
        *(lambda: vault.keep("other", VALUE), lambda: authority.safe.make_job_key("lot-2"), office.open),
    ]
    for verb in verbs:
        with pytest.raises(TokenAway) as raised:
            verb()
        assert raised.value.exit_code == 75 and "token" in raised.value.detail

    office.token.put_back()
    time.sleep(LOOK_AGAIN_S)
    assert authority.unwrap(JOB, blob, b"") == VALUE
    assert vault.names() == ("mp",) and not authority.safe.has_job_key("lot-2")
    assert look(office, JOB) == {}


def test_a_token_pulled_under_load_gives_right_signatures_or_none(
    office: TokenOffice, authority: IssuerAuthority
) -> None:
    """T-603 Accident: pulled and put back five times while eight threads sign; a restart of the module ends no call."""
    wrong, signed, away, stop = [], [], [], Event()

    def act() -> None:
        while not stop.is_set():
            try:
                verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))
                signed.append(1)
            except TokenAway:
                away.append(1)
                time.sleep(0.01)
            except Exception as error:
                wrong.append(error)

    threads = [Thread(target=act) for _ in range(8)]
    for one in threads:
        one.start()
    for _ in range(5):
        time.sleep(0.3)
        office.token.pull()
        time.sleep(0.3)
        office.token.put_back()
        time.sleep(LOOK_AGAIN_S)
    before = len(signed)
    time.sleep(LOOK_AGAIN_S)
    stop.set()
    for one in threads:
        one.join()
    assert wrong == [] and away
    assert len(signed) > before > 0
    assert look(office, JOB) == {}


def test_a_job_key_gone_while_the_token_is_there_is_an_ended_job(
    office: TokenOffice, authority: IssuerAuthority
) -> None:
    """T-604 Key destroyed under us: another process ends the job; this one had used the key, and forgets as well."""
    blob = authority.wrap(JOB, VALUE, b"")
    code = (
        "import sys; from pathlib import Path; from mpserver.authority import open_safe;"
        "from mpserver.keystore import Keystore;"
        f"open_safe(Keystore(Path(sys.argv[1]))).destroy_job_key({JOB!r})"
    )
    settings = {"PYTHONPATH": ":".join(sys.path), **office.token.environment}
    subprocess.run([sys.executable, "-c", code, str(office.keys)], env=settings, check=True, timeout=60)
    for verb in (lambda: authority.unwrap(JOB, blob, b""), lambda: authority.wrap(JOB, VALUE, b"")):
        with pytest.raises(Refused, match="job-ended"):
            verb()
    verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))


@pytest.mark.parametrize("name", ["root", "grant", "head", "bundle", "ca", "symmetric"])
def test_a_key_destroyed_under_us_is_named_and_not_made_again(
    office: TokenOffice, authority: IssuerAuthority, stranger: Session, name: str
) -> None:
    """T-604 Key destroyed under us: whoever has the PIN can destroy; nothing takes the key's place by itself."""
    objects.destroy(stranger, name)
    there = labels_in(stranger)
    with pytest.raises(StoreDamaged, match=f"does not hold the key mpserver/{name}: find out who destroyed it"):
        office.open()
    assert look(office, JOB) == {f"mpserver/{name}": "it is missing"}
    assert labels_in(stranger) == there


def test_more_threads_than_sessions_wait_and_nobody_for_ever(authority: IssuerAuthority) -> None:
    """T-605 Session exhaustion: the pool is bounded, and who finds it in use hears so after a while."""
    pool, held, go_on = safe_of(authority).pool, Barrier(SESSIONS_MAX + 1), Event()

    def hold(_session: Session) -> None:
        held.wait()
        go_on.wait()

    threads = [Thread(target=pool.run, args=("waiting", hold)) for _ in range(SESSIONS_MAX)]
    for one in threads:
        one.start()
    held.wait()
    pool.wait_s = 0.2
    with pytest.raises(TokenAway) as raised:
        authority.sign("grant", b"x")
    assert f"all {SESSIONS_MAX} sessions with the token are in use" in raised.value.detail
    go_on.set()
    for one in threads:
        one.join()
    verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))


def test_forty_threads_share_four_sessions_and_every_signature_is_right(authority: IssuerAuthority) -> None:
    """T-605 Session exhaustion: a module without locks confuses calls of several threads; ours is told to lock."""
    pool, wrong, seen = safe_of(authority).pool, [], set()
    pool.wait_s = 60

    def act(number: int) -> None:
        message = bytes((number,)) * 100
        for _ in range(25):
            try:
                verify(authority.public_key("grant"), message, authority.sign("grant", message))
                assert authority.unwrap(JOB, authority.wrap(JOB, Secret(message), b""), b"") == Secret(message)
                pool.run("", lambda session: seen.add(session.raw.handle))
            except Exception as error:
                wrong.append(error)

    threads = [Thread(target=act, args=(number,)) for number in range(40)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    assert 1 <= len(seen) <= SESSIONS_MAX


def test_sessions_that_others_hold_are_no_reason_to_fail_for_ever(office: TokenOffice) -> None:
    """T-605 Session exhaustion: forty times opened and closed by commands, the token has as many sessions as before."""
    for _ in range(40):
        authority = office.open()
        authority.sign("grant", b"x")
        safe_of(authority).pool.close()
    verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_pin_file_that_others_may_read_is_not_used(office: TokenOffice, mode: int) -> None:
    """T-606 Stolen PIN file: a file that is open to others has been read by others."""
    office.token.pin_file.chmod(mode)
    with pytest.raises(SetUp, match=r"PIN file .* is open to others: find out who read it, set a new PIN"):
        office.open()


@pytest.mark.parametrize("content", [b"", b"\n", b"1" * 256, b"\xff\xfe", None])
def test_a_pin_file_without_a_pin_says_so_and_not_what_it_holds(office: TokenOffice, content: bytes | None) -> None:
    """T-606 Accident: an empty, oversized, binary or missing PIN file."""
    if content is None:
        office.token.pin_file.unlink()
    else:
        office.token.pin_file.write_bytes(content)
    with pytest.raises(SetUp, match=r"PIN file .* (cannot be read|does not hold a PIN)") as raised:
        office.open()
    assert "1111" not in str(raised.value)


def test_a_wrong_pin_costs_one_try_a_process_however_often_it_is_asked(office: TokenOffice) -> None:
    """T-607 Tries burnt: the PIN was changed on the token. A server under load must not lock it."""
    authority = office.open()
    office.token.pin_file.write_text("0000-0000\n")
    office.token.pull()
    with pytest.raises(TokenAway):
        authority.sign("grant", b"x")
    office.token.put_back()
    for _ in range(3):
        time.sleep(LOOK_AGAIN_S)
        for _ in range(5):
            with pytest.raises(SetUp, match=r"is not that of the token 'oem'.* does not try the same PIN twice"):
                authority.sign("grant", b"x")
    office.token.pin_file.write_text("2718-2818\n")
    time.sleep(LOOK_AGAIN_S)
    verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))


def test_who_has_the_pin_cannot_take_a_key_out(authority: IssuerAuthority, stranger: Session) -> None:
    """T-608 Insider with the PIN: uses the keys while he has the token, and takes none with him."""
    p11, attribute = stranger.p11, stranger.p11.Attribute
    out = stranger.raw.generate_key(
        p11.KeyType.AES, 256, capabilities=p11.MechanismFlag.WRAP | p11.MechanismFlag.UNWRAP | p11.MechanismFlag.ENCRYPT
    )
    for name in ("grant", "symmetric", f"job/{JOB}", "vault/mp"):
        key = objects.find(stranger, name)
        tries: list[Callable[[], object]] = [
            *(lambda key=key: key[attribute.VALUE], lambda key=key: out.wrap_key(key)),
            *(
                lambda key=key, word=word, value=value: key.__setitem__(getattr(attribute, word), value)
                for word, value in (("EXTRACTABLE", True), ("SENSITIVE", False), ("DERIVE", True), ("WRAP", True))
            ),
            lambda key=key: key.copy({attribute.EXTRACTABLE: True, attribute.SENSITIVE: False}),
        ]
        for attempt in tries:
            with pytest.raises((p11.PKCS11Error, AttributeError)):
                attempt()
    assert authority.safe.vault.expand("mp", b"") == authority.safe.vault.expand("mp", b"")


def test_a_token_with_keys_in_it_gets_no_second_issuer(office: TokenOffice, tmp_path: Path) -> None:
    """T-609 Mix-up: an init on the token of another issuer would let `hsm audit` call the one's keys the other's."""
    settings = name_token(office.module, LABEL, "", str(office.token.pin_file))
    with pytest.raises(SetUp, match=r"holds 6 keys already \(the first: 'mpserver/"):
        found(tmp_path / "second", "lab", (), NOW, settings)
    assert not (tmp_path / "second" / "keys").exists()
    assert look(office) == {}


def test_an_init_cut_short_leaves_no_key_behind(tmp_path: Path) -> None:
    """T-610 Accident: power lost during an init with a token. What it made was never used; the next one clears it."""
    office = TokenOffice(tmp_path / "oem")
    settings = choose_token(name_token(office.module, LABEL, "", str(office.token.pin_file)))
    state = tmp_path / "state"
    office.keys = state / STAGING / "keys"
    (state / STAGING).mkdir(parents=True, mode=0o700)
    office.store = type(office.store)(office.keys)
    office.store.make_directories()
    write_settings(office.store, settings)
    for name in ("root", "grant"):  # so far it had come
        open_safe(office.store, is_new=True).make_key(name)

    office.token.pull()
    with pytest.raises(SetUp, match=r"keys it left in a token cannot be destroyed.* put the token in, or remove"):
        found(state, "lab", (), NOW, name_token(office.module, LABEL, "", str(office.token.pin_file)))
    assert office.keys.exists()

    office.token.put_back()
    time.sleep(LOOK_AGAIN_S)
    found(state, "lab", (), NOW, name_token(office.module, LABEL, "", str(office.token.pin_file)))
    office.store = type(office.store)(state / "keys")
    assert [one.label for one in list_all(office)] == [
        f"mpserver/{name}" for name in ("bundle", "ca", "grant", "head", "root", "symmetric")
    ]
    assert look(office) == {}


def test_a_module_that_everybody_may_write_is_not_loaded(office: TokenOffice) -> None:
    """T-611 Planted module: the PKCS#11 library is code that runs here and hears the PIN."""
    copy = office.token.make_module()
    copy.chmod(0o757)
    with pytest.raises(SetUp, match="everybody may write the PKCS#11 module"):
        choose_token(name_token(copy, LABEL, "", str(office.token.pin_file)))


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF"])
def test_what_is_no_module_is_named(office: TokenOffice, content: bytes) -> None:
    """T-611 Accident: another file, or a cut off library, where the module should be."""
    path = office.folder / "module.so"
    path.write_bytes(content)
    with pytest.raises(SetUp, match=r"module\.so is no PKCS#11 module"):
        choose_token(name_token(path, LABEL, "", str(office.token.pin_file)))


def test_keys_of_a_stolen_state_directory_sign_nothing(office: TokenOffice, authority: IssuerAuthority) -> None:
    """T-612 Stolen backup: the keystore of a server with a token holds no key but that of TLS and the standby root."""
    secrets = [path for path in office.folder.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
    assert sorted(path.name for path in secrets) == ["standby-root.pem", "tls.pem"]
    signed = authority.sign("trust", b"x")
    verify(authority.public_key("trust"), b"x", signed)
    assert isinstance(SoftKey(safe_of(authority).load_key("root")), SoftKey)
    with pytest.raises(SetUp, match="gives no key away"):
        SoftKey(safe_of(authority).load_key("root")).to_scalar()
