#!/bin/sh
# Applies each mutation of mutants.txt to a copy of the core; the simulation has to fail on every one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/rust"
cp "$root/Cargo.lock" "$copy"
sed -e 's|^members = .*|members = ["rust/core"]|' -e '/^cloaca-core = /d' "$root/Cargo.toml" > "$copy/Cargo.toml"
cp -r "$root/rust/core" "$copy/rust/core"
cp -r "$root/rust/core/src" "$copy/sound"
cd "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/mutants}"
simulate() { cargo test --quiet -p cloaca-core --test simulation "$@" > "$copy/log" 2>&1; }
simulate || { cat "$copy/log"; echo "the simulation fails without any mutation"; exit 1; }
missed=0
while read -r file expression; do
    case "$file" in '' | '#') continue ;; esac
    rm -rf rust/core/src && cp -r sound rust/core/src
    sed -i -e "$expression" "rust/core/src/$file"
    if cmp -s "sound/$file" "rust/core/src/$file"; then verdict="changes nothing"
    elif ! simulate --no-run; then verdict="does not compile"
    elif timeout 120 cargo test --quiet -p cloaca-core --test simulation > "$copy/log" 2>&1; then verdict="NOT NOTICED"
    else verdict="noticed"
    fi
    [ "$verdict" = noticed ] || missed=$((missed + 1))
    printf '%-16s %s %s\n' "$verdict" "$file" "$expression"
done < "$here/mutants.txt"
echo "$missed mutations were not noticed"
[ "$missed" -eq 0 ]
