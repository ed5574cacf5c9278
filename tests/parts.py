"""Runs the suite as three processes side by side: most tests wait for something, so that two cores have it
done in little more than a third of the time.

Each part takes folders whole, about as long as the others. What the later ones print comes after the first
one's. Exit code 1 if any fails.
"""

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

TESTS = Path(__file__).parent
PARTS = {
    "first": ("api", "scenarios", "ui"),
    "second": ("break", "server", "telemetry", "typing"),
    "third": (),
}
"""The last one takes what is in no other."""


def folders_of(name: str) -> list[str]:
    all_of_them = sorted(path.name for path in TESTS.iterdir() if any(path.glob("test_*.py")))
    taken = {each for part in PARTS.values() for each in part}
    return [each for each in all_of_them if (each in PARTS[name] if PARTS[name] else each not in taken)]


def main() -> int:
    with ExitStack() as stack:
        outs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in list(PARTS)[1:])]
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{name}"]
                + [f"{TESTS.name}/{folder}" for folder in folders_of(name)],
                cwd=TESTS.parent,
                stdout=out,
            )
            for name, out in zip(PARTS, outs, strict=True)
        ]
        codes = [each.wait() for each in running]
        for out in outs:
            if out is not None:
                out.seek(0)
                sys.stdout.buffer.write(out.read())
    if not {0, 1}.issuperset(codes):
        # One did not come to its end: what the others noted as failed is not all.
        shutil.rmtree(TESTS.parent / ".pytest_cache", ignore_errors=True)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
