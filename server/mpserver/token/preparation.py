"""Before an issuer's keys go into a token: initialise one, and see that it is empty and can do what is needed."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpserver.errors import SetUp
from mpserver.token import policy
from mpserver.token.faults import explain, is_gone
from mpserver.token.gcm import check_round_trip
from mpserver.token.module import LABEL_BYTES, Module, load_module
from mpserver.token.pool import Pool, Session, name_serial
from mpserver.token.settings import ISSUER_BYTES, TokenSettings, read_pin


def name_token(module: Path, token: str, serial: str, pin: str) -> TokenSettings:
    """Settings of a new issuer, before anything was asked of the token. Raises SetUp."""
    if not 1 <= len(token.encode()) <= LABEL_BYTES:
        raise SetUp(f"a token's label has 1 to {LABEL_BYTES} bytes")
    return TokenSettings(module, token, serial, pin, os.urandom(ISSUER_BYTES))


def choose_token(settings: TokenSettings) -> TokenSettings:
    """The same with its serial number. Raises SetUp where it has keys already or lacks a mechanism; TokenAway."""
    pool = Pool(settings)
    try:
        serial, held, missing, flaw = pool.run("looking at the token", _look)
    finally:
        pool.close()
    if missing:
        raise SetUp(f"the token {settings.token!r} does not offer {', '.join(f'CKM_{one}' for one in missing)}")
    if flaw:
        raise SetUp(f"the token {settings.token!r} does not do AES-GCM with a nonce that it is given ({flaw})")
    if held:
        raise SetUp(
            f"the token {settings.token!r} holds {len(held)} keys already (the first: {held[0]!r}): an issuer has a"
            " token of its own; take another, or initialise this one anew"
        )
    return replace(settings, serial=serial)


def initialize(module_path: Path, label: str, so_pin_name: str, pin_name: str) -> str:
    """C_InitToken and C_InitPIN on the first token that nobody initialised; its serial. Raises SetUp, TokenAway."""
    if not 1 <= len(label.encode()) <= LABEL_BYTES:
        raise SetUp(f"a token's label has 1 to {LABEL_BYTES} bytes")
    so_pin, pin = read_pin(so_pin_name), read_pin(pin_name)
    if so_pin == pin:
        raise SetUp("the security officer's PIN and the user's PIN are the same: whoever has one would have both")
    module = load_module(module_path)
    with module.turn:
        if any(token.label == label for token in module.list_tokens()):
            raise SetUp(f"a token labelled {label!r} is there already: nothing was changed")
        blank = module.list_blank()
        if not blank:
            raise SetUp(f"no slot of {module_path} has a token that was never initialised: nothing was changed")
        module.initialize_token(blank[0], so_pin.reveal().decode(), label)
        return _set_pin(module, label, so_pin.reveal().decode(), pin.reveal().decode())


def _set_pin(module: Module, label: str, so_pin: str, pin: str) -> str:
    (token,) = [one for one in module.list_tokens() if one.label == label]
    try:
        session = token.open(rw=True, so_pin=so_pin)
        try:
            session.init_pin(pin)
        finally:
            session.close()
    except RuntimeError as refused:
        raise explain(refused, "setting the user PIN") from None
    return name_serial(token)


def _look(session: Session) -> tuple[str, list[str], list[str], str]:
    """Serial number, labels of keys, missing mechanisms, and what went wrong with AES-GCM."""
    p11 = session.p11
    offered = session.token.slot.get_mechanisms()
    missing = [name for name in policy.MECHANISMS if getattr(p11.Mechanism, name) not in offered]
    held = [str(key[p11.Attribute.LABEL]) for key in list_keys(session)]
    return name_serial(session.token), held, missing, "" if missing else _try_gcm(session)


def _try_gcm(session: Session) -> str:
    p11 = session.p11
    uses = p11.MechanismFlag.ENCRYPT | p11.MechanismFlag.DECRYPT
    try:
        key = session.raw.generate_key(p11.KeyType.AES, 256, store=False, capabilities=uses)
        check_round_trip(key, p11.Mechanism.AES_GCM)
        key.destroy()
    except p11.PKCS11Error as refused:
        if is_gone(refused):
            raise
        return type(refused).__name__
    return ""


def list_keys(session: Session) -> list[Any]:
    """Every private and secret key that is kept in the token, whoever made it."""
    p11 = session.p11
    kinds = (p11.ObjectClass.PRIVATE_KEY, p11.ObjectClass.SECRET_KEY)
    wanted = [{p11.Attribute.CLASS: kind, p11.Attribute.TOKEN: True} for kind in kinds]
    return [key for one in wanted for key in session.raw.get_objects(one)]
