"""Runs the tests that failed last once more, if they are few, and names those that pass then: they fail by
chance, which is a fault of the test or of what it tests, and to be found out.

usage: python tests/again.py [FOLDER_OF_PYTESTS_CACHES [WORD_FOR_PYTEST ...]]

Exit code 0 if all of them pass.
"""

import json
import subprocess
import sys
from pathlib import Path

FAILURES_MAX = 3
CACHES = Path(__file__).parents[1] / ".pytest_cache"


def main(caches: Path = CACHES, *words: str) -> int:
    failed = sorted(
        name for each in caches.rglob("v/cache/lastfailed") for name in json.loads(each.read_text())
    )
    if not 0 < len(failed) <= FAILURES_MAX:
        print(f"{len(failed)} tests failed; none is run again")
        return 1
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, *failed]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print("passed only the second time:", *failed, sep="\n  ")
    return code


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2]), *sys.argv[2:]))
