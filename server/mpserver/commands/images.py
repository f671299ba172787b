"""mpserver product image: keep a production image for boards to fetch, and print what the product file says of it."""

import argparse
import json
from pathlib import Path
from typing import Any

from mpserver.errors import Usage
from mpserver.images import FOLDER, keep_image
from mpserver.output import Shown
from mpserver.state import open_state
from mpwire.limits import NAME_MAX_BYTES


def add_image(verbs: "argparse._SubParsersAction[Any]") -> None:
    """One verb of `mpserver product`."""
    image = verbs.add_parser("image", help="keep a production image; prints the [image] table for the product file")
    image.add_argument("file", type=Path)
    image.add_argument("--version", required=True, metavar="TEXT", help="the image's version, as boards are told it")
    image.set_defaults(run=product_image)


def product_image(options: argparse.Namespace) -> Shown:
    """Twice the same file is no error. Boards are told of it once the product file has the table."""
    version = options.version
    if not version.isprintable() or not 1 <= len(version.encode()) <= NAME_MAX_BYTES:
        raise Usage(f"--version: a text of 1 to {NAME_MAX_BYTES} bytes")
    open_state(options.dir).close()
    digest, size = keep_image(options.dir / FOLDER, options.file)
    table = f'[image]\nversion = {json.dumps(version, ensure_ascii=False)}\ndigest = "{digest}"\nsize = {size}'
    return Shown({"version": version, "digest": digest, "size": size, "table": table}, table)
