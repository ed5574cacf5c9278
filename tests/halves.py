"""Runs the suite as two processes side by side: most tests wait for something, so that two cores have it done
in little more than half the time.

Each half takes folders whole, about as long together. The second one's output comes after the first one's.
Exit code 1 if either fails.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
FIRST = ("api", "crash", "property", "telemetry", "typing", "ui")


def main() -> int:
    folders = sorted(path.name for path in TESTS.iterdir() if any(path.glob("test_*.py")))
    halves = [each for each in folders if each in FIRST], [each for each in folders if each not in FIRST]
    with tempfile.TemporaryFile() as kept:
        first, second = (
            subprocess.Popen(
                [sys.executable, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{name}", *words],
                cwd=TESTS.parent,
                stdout=out,
            )
            for name, half, out in (("first", halves[0], None), ("second", halves[1], kept))
            for words in [[f"{TESTS.name}/{folder}" for folder in half]]
        )
        codes = [first.wait(), second.wait()]
        kept.seek(0)
        sys.stdout.buffer.write(kept.read())
    if not {0, 1}.issuperset(codes):
        # One did not come to its end: what the other one noted as failed is not all.
        shutil.rmtree(TESTS.parent / ".pytest_cache", ignore_errors=True)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
