"""Production images: kept by their hash, told by the product, given by range to whoever asks."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mpissuer.errors import ProductWrong
from mpissuer.policy import read_product
from mpserver.cli import main
from mpserver.images import find_piece
from mpwire import registry
from tests.mpserver.server import Running, running, set_up

IMAGE = random.Random(5).randbytes(300_007)
NAME = hashlib.sha256(IMAGE).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("images")
    state = set_up(folder)
    (folder / "production.img").write_bytes(IMAGE)
    assert main(["--dir", str(state), "product", "image", str(folder / "production.img"), "--version", "2"]) == 0
    with running(folder, state) as one:
        yield one


def ask(server: Running, path: str, method: str = "GET", **headers: str) -> requests.Response:
    roots = str(server.state / "keys" / "root.crt")
    return requests.request(method, server.url + path, headers=headers, verify=roots, timeout=20)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        (None, 0, len(IMAGE)),
        ("bytes=0-0", 0, 1),
        ("bytes=100000-200000", 100_000, 200_001),
        ("bytes=300006-", 300_006, 300_007),
        ("bytes=7-99999999", 7, len(IMAGE)),
    ],
)
def test_a_range_is_given_byte_for_byte(server: Running, asked: str | None, start: int, end: int) -> None:
    answer = ask(server, registry.IMAGE_PATH + NAME, **({} if asked is None else {"range": asked}))
    assert answer.content == IMAGE[start:end]
    assert answer.headers["content-length"] == str(end - start)
    if asked is not None:
        assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes {start}-{end - 1}/{len(IMAGE)}")
    head = ask(server, registry.IMAGE_PATH + NAME, "HEAD")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "asked", "status"),
    [
        ("GET", NAME, "bytes=300007-", 416),
        ("GET", NAME, "bytes=-5", 416),
        ("GET", NAME, "bytes=5-3", 416),
        ("GET", NAME, "bytes=0-1,4-5", 416),
        ("GET", NAME, "lines=0-1", 416),
        ("GET", "0" * 64, "", 404),
        ("GET", NAME.upper(), "", 404),
        ("GET", "../ledger.db", "", 404),
        ("GET", "..%2fkeys%2froot.crt", "", 404),
        ("GET", "", "", 404),
        ("GET", ".new", "", 404),
        ("POST", NAME, "", 405),
        ("DELETE", NAME, "", 405),
    ],
)
def test_what_is_no_range_of_an_image_is_refused(
    server: Running, method: str, path: str, asked: str, status: int
) -> None:
    answer = ask(server, registry.IMAGE_PATH + path, method, **({"range": asked} if asked else {}))
    assert (answer.status_code, answer.content) == (status, b"")


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    for name in ("../secret", "/etc/passwd", "secret", "a" * 63, "a" * 65, "\n" + "a" * 63, "a" * 64 + "\n"):
        assert find_piece(tmp_path / "images", registry.IMAGE_PATH + name, None) == 404


def test_the_table_that_is_printed_is_what_a_product_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, file = set_up(tmp_path), tmp_path / "image"
    file.write_bytes(IMAGE)
    for _ in range(2):
        capsys.readouterr()
        assert main(["--dir", str(state), "product", "image", str(file), "--version", '2.0 "beta"', "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
    product = read_product((tmp_path / "product.toml").read_text() + "\n" + shown["table"])
    assert product.image == (bytes.fromhex(NAME), len(IMAGE), '2.0 "beta"', registry.IMAGE_PATH + NAME)
    assert [one.name for one in (state / "images").iterdir()] == [NAME]


def test_an_image_that_cannot_be_kept_leaves_nothing(tmp_path: Path) -> None:
    state = set_up(tmp_path)
    command = ["--dir", str(state), "product", "image"]
    assert main([*command, str(tmp_path / "missing"), "--version", "1"]) == 64
    (tmp_path / "empty").write_bytes(b"")
    assert main([*command, str(tmp_path / "empty"), "--version", "1"]) == 64
    (tmp_path / "image").write_bytes(b"x")
    assert main([*command, str(tmp_path / "image"), "--version", "x" * 65]) == 64
    assert main([*command, str(tmp_path / "image"), "--version", "a\nb"]) == 64
    assert not (state / "images").exists() or list((state / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (f'version = "1"\ndigest = "{NAME}"\nsize = 0', "size must be 1 to"),
        (f'version = "1"\ndigest = "{NAME}"', "size must be 1 to"),
        (f'version = "1"\ndigest = "{NAME[:-2]}"\nsize = 1', "needs 32 bytes"),
        ('version = "1"\nsize = 1', "digest"),
        (f'digest = "{NAME}"\nsize = 1', "version is missing"),
        (f'version = "1"\ndigest = "{NAME}"\nsize = 1\npath = "/x"', "unknown key 'path'"),
        (f'version = 1\ndigest = "{NAME}"\nsize = 1', "version is not a text"),
    ],
)
def test_a_wrong_image_table_is_refused_with_the_product(tmp_path: Path, table: str, words: str) -> None:
    set_up(tmp_path)
    with pytest.raises(ProductWrong, match=words):
        read_product((tmp_path / "product.toml").read_text() + "\n[image]\n" + table)
