#!/bin/sh
# Applies each mutation of mutants.txt to a copy of the sources; its suite has to fail on every one.
# mutants.sh [SUITE] keeps to those of one suite; mutants.sh check only sees that each still changes its file, which takes a second.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
only=${1:-}
if [ "$only" = check ]; then
    stale=0
    while read -r suite file expression; do
        case "$suite" in '' | '#'*) continue ;; esac
        if sed -e "$expression" "$root/rust/$file" 2> /dev/null | cmp -s - "$root/rust/$file" || [ ! -f "$root/rust/$file" ]; then
            stale=$((stale + 1))
            echo "changes nothing: $suite $file $expression"
        fi
    done < "$root/tests/mutants.txt"
    [ "$stale" -eq 0 ]
    exit
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && git ls-files -z | tar --null --files-from - --create) | tar --extract --directory "$copy"
cp -r "$copy/rust" "$copy/sound"
cd "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/mutants}"
bin=$root/.venv/bin

tests_of() {
    case "$1" in
        simulation | takeover | poll | closing) echo "-p cloaca-core --test $1" ;;
        races) echo "-p cloaca-core --features races --test races" ;;
        store) echo "-p cloaca-store" ;;
        core) echo "-p cloaca-core --lib" ;;
    esac
}

build() {
    case "$1" in
        *.py)
            rm -rf dist site
            "$bin/maturin" build --quiet --locked --features fault-points --out dist
            "$bin/python" -m zipfile -e dist/*.whl site ;;
        *) cargo test --quiet --locked $(tests_of "$1") --no-run ;;
    esac
}

passes() {
    case "$1" in
        *.py) PYTHONPATH="$copy/site" timeout 900 "$bin/python" -m pytest -q -x -p no:cacheprovider "tests/crash/$1" ;;
        *) timeout 120 cargo test --quiet --locked $(tests_of "$1") ;;
    esac
}

missed=0
sound=
while read -r suite file expression; do
    case "$suite" in '' | '#'*) continue ;; esac
    [ -z "$only" ] || [ "$only" = "$suite" ] || continue
    rm -rf rust && cp -r sound rust
    if [ "$sound" != "$suite" ]; then
        { build "$suite" && passes "$suite"; } > log 2>&1 || { cat log; echo "$suite fails without any mutation"; exit 1; }
        sound=$suite
    fi
    sed -i -e "$expression" "rust/$file"
    if cmp -s "sound/$file" "rust/$file"; then verdict="changes nothing"
    elif ! build "$suite" > log 2>&1; then verdict="does not compile"
    elif passes "$suite" > log 2>&1; then verdict="NOT NOTICED"
    else verdict="noticed"
    fi
    [ "$verdict" = noticed ] || missed=$((missed + 1))
    printf '%-16s %s %s %s\n' "$verdict" "$suite" "$file" "$expression"
done < "$root/tests/mutants.txt"
echo "$missed mutations were not noticed"
[ "$missed" -eq 0 ]
