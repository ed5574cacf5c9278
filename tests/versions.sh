#!/bin/sh
# Runs a part of the suite with every further Python that is on this machine: tests/api, and of tests/break what a newer Python may change. The extension is built once, for the
# stable ABI of 3.11: what a newer Python changes is how threads end, how it forks and what it warns of.
# usage: sh tests/versions.sh; PYTHONS="python3.13 /opt/3.14/bin/python" names them.
set -eu
cd "$(dirname "$0")/.."

versions="3.12 3.13 3.14"
quick="tests/api tests/break/test_exit.py tests/break/test_bodies.py tests/break/test_fork.py tests/break/test_signals.py tests/break/test_tick.py"
folder="${TMPDIR:-/tmp}/cloaca-versions-$$"
trap 'rm -rf "$folder"' EXIT

found() {
    for version in $versions; do
        for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
            # A name may be there that leads nowhere, as pyenv's shims do.
            if "$candidate" -c "import sys, venv, sqlite3; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2> /dev/null; then
                echo "$candidate"
                break
            fi
        done
    done
}

# Side by side: most tests wait for something. What they say is told of one after the other.
of_one() {
    "$1" -m venv "$2/venv"
    grep -E '^(pytest|pytest-timeout|hypothesis|iniconfig|packaging|pluggy|Pygments|attrs|sortedcontainers|croniter|python-dateutil|pytz|six)==' requirements-dev.txt > "$2/requirements.txt"
    "$2/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2/requirements.txt"
    PYTHONPATH="$PWD/python" "$2/venv/bin/python" -m pytest --maxfail 4 -o "cache_dir=$2/caches" $quick ||
        PYTHONPATH="$PWD/python" "$2/venv/bin/python" tests/again.py "$2/caches"
}

pythons=$(found)
for python in ${PYTHONS:=$pythons}; do
    number=$((${number:-0} + 1))
    mkdir -p "$folder/$number"
    "$python" -c 'import platform; print("tests with Python", platform.python_version())' > "$folder/$number/told"
    { of_one "$python" "$folder/$number" >> "$folder/$number/told" 2>&1 || echo failed > "$folder/$number/failed"; } &
done
wait
for each in "$folder"/*/told; do
    [ ! -e "$each" ] || cat "$each"
done
! ls "$folder"/*/failed > /dev/null 2>&1
