"""The challenge nobody remembers: only an issuer with the key could have said it, and not for long."""

import pytest

from mpissuer.challenge import (
    KEY_EPOCH_S,
    check_challenge,
    check_not_expired,
    derive_credential_secret,
    write_challenge,
)
from mpissuer.errors import Again, Refused
from mpwire.errors import MpError
from mpwire.limits import CHALLENGE_LIFE_S, CHALLENGE_MAX_BYTES
from mpwire.messages.plain import CHALLENGE, HELLO
from tests.fuzz.decoders import MP, TPM
from tests.fuzz.issuer import FreeAuthority
from tests.vectors import exchange, world

NOON = world.NOW // KEY_EPOCH_S * KEY_EPOCH_S + KEY_EPOCH_S // 2


def say(raw_hello: bytes = MP.hello, now: int = NOON, authority: FreeAuthority | None = None) -> bytes:
    hello = HELLO.decode(raw_hello, len(raw_hello))
    return write_challenge(raw_hello, hello, authority or FreeAuthority(), now, lambda size: b"\x5a" * size)  # type: ignore[arg-type]


def check(raw: bytes, now: int = NOON, authority: FreeAuthority | None = None) -> None:
    check_challenge(raw, CHALLENGE.decode(raw, CHALLENGE_MAX_BYTES), authority or FreeAuthority(), now)  # type: ignore[arg-type]


def refused(raw: bytes, now: int = NOON, authority: FreeAuthority | None = None) -> str:
    with pytest.raises(Refused) as error:
        check(raw, now, authority)
    return error.value.check


def test_another_replica_with_the_same_key_knows_it() -> None:
    check(say(authority=FreeAuthority(b"one root")), authority=FreeAuthority(b"one root"))


def test_an_issuer_with_another_key_does_not() -> None:
    assert refused(say(), authority=FreeAuthority(b"another root")) == "challenge"


@pytest.mark.parametrize("raw_hello", [MP.hello, TPM.hello], ids=["mp", "tpm"])
def test_a_byte_changed_anywhere_is_noticed(raw_hello: bytes) -> None:
    said = say(raw_hello)
    taken = []
    for place in range(len(said)):
        for bit in (0x01, 0x80):
            bent = said[:place] + bytes([said[place] ^ bit]) + said[place + 1 :]
            try:
                check(bent)
            except MpError:
                continue
            taken.append(place)
    assert taken == []


def test_a_later_expiry_cannot_be_written_into_it() -> None:
    challenge = CHALLENGE.decode(say(), CHALLENGE_MAX_BYTES)
    longer = challenge.nonce[:20] + (NOON + 9 * CHALLENGE_LIFE_S).to_bytes(8, "big") + challenge.nonce[28:]
    assert refused(CHALLENGE.encode(challenge._replace(nonce=longer))) == "challenge"


def test_its_answer_cannot_be_moved_to_another_hello() -> None:
    challenge = CHALLENGE.decode(say(), CHALLENGE_MAX_BYTES)
    assert refused(CHALLENGE.encode(challenge._replace(hello_hash=bytes(32)))) == "challenge"


def test_a_mac_of_zeros_is_no_mac() -> None:
    challenge = CHALLENGE.decode(say(), CHALLENGE_MAX_BYTES)
    assert refused(CHALLENGE.encode(challenge._replace(nonce=challenge.nonce[:28] + bytes(32)))) == "challenge"


def test_a_challenge_outlives_midnight_but_not_its_key() -> None:
    last_second = (NOON // KEY_EPOCH_S + 1) * KEY_EPOCH_S - 1
    said = say(now=last_second)
    check(said, now=last_second + 1)
    check(said, now=last_second + KEY_EPOCH_S)
    assert refused(said, now=last_second + 1 + KEY_EPOCH_S) == "challenge-expired"


def test_a_challenge_of_tomorrows_key_is_refused() -> None:
    assert refused(say(now=NOON + KEY_EPOCH_S)) == "challenge-expired"


def test_each_days_mac_key_is_its_own() -> None:
    today, tomorrow = (CHALLENGE.decode(say(now=NOON + day), CHALLENGE_MAX_BYTES) for day in (0, KEY_EPOCH_S))
    assert today.nonce[28:] != tomorrow.nonce[28:]


def test_it_may_be_answered_until_its_last_second() -> None:
    challenge = CHALLENGE.decode(say(), CHALLENGE_MAX_BYTES)
    check_not_expired(challenge, NOON + CHALLENGE_LIFE_S)
    with pytest.raises(Refused) as error:
        check_not_expired(challenge, NOON + CHALLENGE_LIFE_S + 1)
    assert (error.value.check, error.value.again) == ("challenge-expired", Again.RETRY)


def test_a_credential_secret_is_for_one_nonce_one_tpm_and_one_issuer() -> None:
    nonce, attester = CHALLENGE.decode(say(TPM.hello), CHALLENGE_MAX_BYTES).nonce, exchange.attester_id("tpm")

    def derive(nonce: bytes, attester: bytes, root: bytes = b"") -> bytes:
        return derive_credential_secret(nonce, attester, FreeAuthority(root)).reveal()  # type: ignore[arg-type]

    right = derive(nonce, attester)
    assert len(right) == 32 and right == derive(nonce, attester)
    others = [
        derive(bytes([nonce[place] ^ 1 if one == place else nonce[one] for one in range(60)]), attester)
        for place in range(28)
    ]
    others += [
        derive(nonce, attester[:place] + bytes([attester[place] ^ 1]) + attester[place + 1 :]) for place in (5, 40)
    ]
    others.append(derive(nonce, attester, b"another root"))
    assert len({right, *others}) == len(others) + 1


def test_only_a_tpm_gets_a_credential() -> None:
    assert CHALLENGE.decode(say(MP.hello), CHALLENGE_MAX_BYTES).credential is None
    assert CHALLENGE.decode(say(TPM.hello), CHALLENGE_MAX_BYTES).credential is not None
