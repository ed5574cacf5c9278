"""How long a context's digest takes in other ways: of a small one, a middling one, and one of a megabyte."""

import hashlib
import json
import timeit
from collections.abc import Callable

from common import Figures, run_contestant

SMALL = 5
MIDDLING = 100
LARGE_BYTES = 1_000_000


def contexts() -> dict[str, dict[str, object]]:
    """The same three that benches/rust/benches/hash.rs makes."""
    large = {f"key{number:05}": "x" * 90 for number in range(LARGE_BYTES // 103)}
    return {"keys_5": _mixed(SMALL), "keys_100": _mixed(MIDDLING), "megabyte": large}


def _mixed(count: int) -> dict[str, object]:
    values: list[object] = ["in/file.csv", 12345, True, 0.25, None]
    return {f"key{number:05}": values[number % len(values)] for number in range(count)}


def run_json_sha256(seconds: float) -> Figures:
    """What the standard library has."""
    return _measured(
        lambda c: hashlib.sha256(json.dumps(c, sort_keys=True, separators=(",", ":")).encode()).digest(),
        seconds,
    )


def run_orjson_xxh3(seconds: float) -> Figures:
    """The fastest that there is, but not safe from collisions made on purpose."""
    import orjson
    import xxhash

    return _measured(lambda c: xxhash.xxh3_128_digest(orjson.dumps(c, option=orjson.OPT_SORT_KEYS)), seconds)


def run_orjson_blake3(seconds: float) -> Figures:
    """The fastest safe one."""
    import blake3
    import orjson

    return _measured(
        lambda c: blake3.blake3(orjson.dumps(c, option=orjson.OPT_SORT_KEYS)).digest(16), seconds
    )


def _measured(digest: Callable[[dict[str, object]], bytes], seconds: float) -> Figures:
    figures = {}
    for name, context in contexts().items():
        timer = timeit.Timer(lambda context=context: digest(context))
        count = max(1, int(seconds / max(timer.timeit(10) / 10, 1e-9) / 5))
        figures[name + "_ns"] = min(timer.repeat(5, count)) / count * 1e9
    return figures


if __name__ == "__main__":
    run_contestant(
        {"json_sha256": run_json_sha256, "orjson_xxh3": run_orjson_xxh3, "orjson_blake3": run_orjson_blake3},
        seconds=float,
    )
