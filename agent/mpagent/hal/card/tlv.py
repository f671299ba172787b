"""BER-TLV as PIV answers use it (SP 800-73-4 Part 2): tags of one byte, one after the other, up to the exact end.

A length may be spelled longer than it must be: BER allows it and issuers' software writes it. All else is refused.
"""

from mpwire.errors import Malformed


def read_fields(raw: bytes) -> dict[int, bytes]:
    """Value by tag. Raises Malformed for a tag twice, a tag of more bytes, or a length that is not the rest's."""
    fields: dict[int, bytes] = {}
    while raw:
        tag, (size, start) = raw[0], _read_length(raw)
        if tag & 0x1F == 0x1F or tag in fields or start + size > len(raw):
            raise Malformed("card-tlv")
        fields[tag], raw = raw[start : start + size], raw[start + size :]
    return fields


def read_only(raw: bytes, tag: int) -> bytes:
    """The value of the one field that `raw` consists of. Raises Malformed."""
    fields = read_fields(raw)
    if fields.keys() != {tag}:
        raise Malformed("card-tlv")
    return fields[tag]


def write(tag: int, value: bytes) -> bytes:
    """One field of at most 255 bytes: no command of ours is longer."""
    size = bytes([len(value)]) if len(value) < 0x80 else bytes([0x81, len(value)])
    return bytes([tag]) + size + value


def _read_length(raw: bytes) -> tuple[int, int]:
    """(length, where the value starts)."""
    if len(raw) >= 2 and raw[1] < 0x80:
        return raw[1], 2
    count = raw[1] - 0x80 if len(raw) >= 2 else 0
    if count not in (1, 2) or len(raw) < 2 + count:
        raise Malformed("card-tlv")
    return int.from_bytes(raw[2 : 2 + count], "big"), 2 + count
