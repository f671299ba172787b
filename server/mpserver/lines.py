"""Where in a product file the thing stands that a complaint is about."""

import re

from mpissuer.errors import ProductWrong


def find_line(text: str, wrong: ProductWrong) -> int:
    """Line of the key, of its table where the key is missing, of TOML's own complaint, or 1; counted from 1."""
    said = re.search(r"at line (\d+)", str(wrong))
    if said:
        return int(said[1])
    if str(wrong).endswith("(at end of document)"):
        return text.count("\n") + 1
    key = re.compile(rf"""\s*["']?{re.escape(wrong.key)}["']?\s*=""") if wrong.key else None
    slot, header = None, 1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*slot\s*\]\]", line):
            slot = 0 if slot is None else slot + 1
            header = number if slot == wrong.slot else header
        if slot == wrong.slot and key is not None and key.match(line):
            return number
    return header
