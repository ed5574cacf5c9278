"""Counts instructions of the hot paths under valgrind and compares them with the baseline: `make guard`.

A count does not depend on what else the machine does, so a slowdown shows where a clock would see noise. It
does depend on the compiler and the interpreter: a path is judged only by a baseline of the same ones.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BASELINE = HERE / "baseline.json"
GROWTH_MAX = 0.1
AGAIN_MAX = 2
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")

#: How often each path is gone through; the price of once is in the difference between the two counts.
PATHS = {
    "rust": {
        "wheel": (1_000, 3_000),
        "wheel-anew": (1_000, 3_000),
        "quiet-poll": (1_000, 3_000),
        "gate": (1_000, 3_000),
        "gate-duplicate": (1_000, 3_000),
        "digest-5-keys": (1_000, 3_000),
        "digest-100-keys": (100, 300),
        "engine-run": (1_000, 3_000),
        "store-run": (1_000, 3_000),
        "store-fire": (1_000, 3_000),
    },
    "python": {
        "skip": (2_000, 6_000),
        "context": (2_000, 6_000),
        "poll": (2_000, 42_000),
        "fire-duplicate": (1_000, 5_000),
        "run": (200, 600),
    },
}
Counts = dict[str, dict[str, float]]


def main() -> int:
    """Counts, compares and tells; the exit code is 1 if a path has grown by more than a tenth."""
    parser = argparse.ArgumentParser(description="Compare instruction counts with the committed ones.")
    parser.add_argument("--update", action="store_true", help="make what is counted now the baseline")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("guard: there is no valgrind here, so no instructions are counted")
        return 0
    build()
    baseline = {} if arguments.update else json.loads(BASELINE.read_text())
    tools, counts = toolchains(), count_all(baseline.get("instructions", {}))
    if arguments.update:
        BASELINE.write_text(json.dumps({"toolchains": tools, "instructions": counts}, indent=1) + "\n")
        print(f"guard: {BASELINE.relative_to(ROOT)} is renewed")
        return 0
    lines, failed = compare(baseline, tools, counts)
    print("\n".join(lines))
    return 1 if failed else 0


def build() -> None:
    """Both sides as they are shipped."""
    subprocess.run(["make", "--silent", "release"], cwd=ROOT, check=True)
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--bin", "count"], cwd=HERE / "rust", check=True
    )


def toolchains() -> dict[str, str]:
    """What the counts of each side depend on."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    machine = platform.machine()
    return {"rust": f"{rustc}, {machine}", "python": f"{rustc}, {sys.version}, {machine}"}


def count_all(before: Counts) -> Counts:
    """Instructions that each path takes once. One that seems to have grown is counted again, and the least
    counts: how threads take turns only adds to it, up to a tenth of a poll.
    """
    programs = {
        "rust": [str(HERE / "rust" / "target" / "release" / "count")],
        "python": [sys.executable, str(HERE / "python" / "count.py")],
    }
    return {
        side: {
            path: _least([*programs[side], path], times, before.get(side, {}).get(path))
            for path, times in paths.items()
        }
        for side, paths in PATHS.items()
    }


def _least(program: list[str], times: tuple[int, int], before: float | None) -> float:
    least = _count(program, times)
    for _ in range(AGAIN_MAX):
        if before is None or least / before - 1 <= GROWTH_MAX:
            break
        least = min(least, _count(program, times))
    return least


def _count(program: list[str], times: tuple[int, int]) -> float:
    few, many = (_instructions([*program, str(number)]) for number in times)
    return round((many - few) / (times[1] - times[0]), 1)


def _instructions(command: list[str]) -> int:
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run([*VALGRIND, *command], env=environment, capture_output=True, text=True, check=False)
    found = COUNTED.search(done.stderr)
    if done.returncode != 0 or found is None:
        sys.exit(f"guard: {' '.join(command)} failed:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def compare(baseline: dict[str, Counts], tools: dict[str, str], counts: Counts) -> tuple[list[str], bool]:
    """A line for each path, and whether one has grown too much."""
    lines, failed = [], False
    for side, paths in counts.items():
        is_comparable = baseline["toolchains"].get(side) == tools[side]
        if not is_comparable:
            lines.append(f"{side}: built with other tools than the baseline's, so nothing fails:")
            lines.append(f"  {tools[side]!r} instead of {baseline['toolchains'].get(side)!r}")
        for path, now in paths.items():
            before = baseline["instructions"].get(side, {}).get(path)
            verdict = "new" if before is None else _verdict(now / before - 1)
            has_grown = verdict.startswith("GROWN")
            failed |= is_comparable and has_grown
            known = "" if before is None else f"{before:12,.1f}"
            lines.append(f"{side:8}{path:18}{known:>12} -> {now:12,.1f}  {verdict}")
    return lines, failed


def _verdict(growth: float) -> str:
    if growth > GROWTH_MAX:
        return f"GROWN by {growth:.0%}"
    if growth < -GROWTH_MAX:
        return f"shrunk by {-growth:.0%}: `make guard GUARD_FLAGS=--update` keeps that"
    return f"{growth:+.1%}"


if __name__ == "__main__":
    sys.exit(main())
