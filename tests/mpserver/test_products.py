"""What a copy of the ledger file, or a look over the shoulder, shows of a product's static secrets."""

import sqlite3
from pathlib import Path

import pytest

from mpissuer.errors import ProductWrong
from mpserver.errors import StoreDamaged
from mpserver.store.products import hide_values, newest_bodies, open_body, seal_body
from tests.mpserver.shop import make_shop

VALUE = "00c0ffee" * 6
TEXT = f"""
name = "camera"
attesters = ["mp"]
grades = ["L"]

[[slot]]
name = "licence"
kind = "static"
value_hex = "{VALUE.upper()}"
"""


def test_a_copied_ledger_file_shows_no_static_value(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "oem")
    sealed = seal_body(shop.authority, "camera", 1, TEXT)

    assert bytes.fromhex(VALUE) not in sealed and VALUE.encode() not in sealed.lower()
    assert open_body(shop.authority, "camera", 1, sealed) == TEXT


@pytest.mark.parametrize(("name", "version"), [("camera", 2), ("other", 1)])
def test_a_product_body_moved_to_another_row_is_damage(tmp_path: Path, name: str, version: int) -> None:
    shop = make_shop(tmp_path / "oem")
    sealed = seal_body(shop.authority, "camera", 1, TEXT)

    with pytest.raises(StoreDamaged, match="does not open under this keystore"):
        open_body(shop.authority, name, version, sealed)


def test_a_product_body_of_another_keystore_is_damage(tmp_path: Path) -> None:
    shop, other = make_shop(tmp_path / "oem"), make_shop(tmp_path / "other")
    connection = sqlite3.connect(tmp_path / "oem" / "ledger.db")

    assert [name for name, _ in newest_bodies(connection, shop.authority)]
    with pytest.raises(StoreDamaged):
        newest_bodies(connection, other.authority)


def test_a_screen_shows_the_length_of_a_static_value_alone() -> None:
    shown = hide_values(TEXT)

    assert VALUE not in shown.lower() and 'value_hex = "<24 bytes>"' in shown


def test_a_value_that_could_not_be_hidden_again_is_refused(tmp_path: Path) -> None:
    spelled = VALUE.replace("c", "\\u0063")
    shop = make_shop(tmp_path / "oem")

    with pytest.raises(ProductWrong, match="without escapes"):
        seal_body(shop.authority, "camera", 1, TEXT.replace(VALUE.upper(), spelled))
