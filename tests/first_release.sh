#!/bin/sh
# Builds the wheel of release 0.1.0 into target/first-release, for tests/scenarios/test_first_release.py: its tag, or else the last state before
# the first migration. A few minutes, once.
set -e
cd "$(dirname "$0")/.."
out=$PWD/target/first-release
ls "$out"/cloaca-0.1.0-*.whl 2>/dev/null && exit 0
release=$(git rev-parse --quiet --verify 'v0.1.0^{commit}' ||
    git rev-parse "$(git log --diff-filter=A --format=%H -- rust/store/src/sqlite/migrations/0002.sql | tail -n 1)^")
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git archive "$release" | tar -x -C "$source"
cd "$source"
"${MATURIN:-maturin}" build --locked --out "$out" --target-dir "$source/target"
