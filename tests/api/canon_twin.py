"""The canonical form of a context, written a second time: the oracle for `cloaca_core::context::Canon`.

Specified in docs/context-hash.md. Run as a program, it checks the golden vectors' bytes.
"""

import json
import math
import struct
from pathlib import Path

VERSION = b"\x01"
DEPTH_MAX = 200
CONTEXT_BYTES_MAX = 16 * 1024 * 1024
GOLDEN = Path(__file__).parents[1] / "golden" / "context_hash.json"


def canon(trigger: str, context: dict) -> bytes:
    """The bytes whose digest is the hash; ValueError for what JSON can't hold."""
    if not isinstance(context, dict):
        raise ValueError(f"a context is a dict, not {type(context).__name__}")
    form = VERSION + _sized(trigger) + _value(context, 1)
    text = json.dumps(context, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > CONTEXT_BYTES_MAX:
        raise ValueError(f"a context is at most {CONTEXT_BYTES_MAX} bytes of JSON")
    return form


def _value(value: object, depth: int) -> bytes:
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i" + _sized(str(int(value)))
        case float() if math.isfinite(value):
            return b"d" + struct.pack(">d", value + 0.0)
        case str():
            return b"s" + _sized(value)
        case list() | tuple() | dict() if depth > DEPTH_MAX:
            raise ValueError(f"a context nests at most {DEPTH_MAX} deep")
        case list() | tuple():
            return b"[" + _length(len(value)) + b"".join(_value(item, depth + 1) for item in value)
        case dict() if all(isinstance(key, str) for key in value):
            pairs = sorted(((key.encode(), key) for key in value), key=lambda pair: pair[0])
            entries = (_sized(key) + _value(value[key], depth + 1) for _, key in pairs)
            return b"{" + _length(len(value)) + b"".join(entries)
    raise ValueError(f"a context can't hold {value!r}")


def _sized(text: str) -> bytes:
    data = text.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return _length(len(data)) + data


def _length(length: int) -> bytes:
    data = bytearray()
    while length >= 0x80:
        data.append(length & 0x7F | 0x80)
        length >>= 7
    data.append(length)
    return bytes(data)


if __name__ == "__main__":
    vectors = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for vector in vectors:
        form = canon(vector["trigger"], json.loads(vector["context"])).hex()
        assert form == vector["bytes"], f"{vector['name']}: {form}"
    print(f"{len(vectors)} vectors agree")
