#!/usr/bin/env bash
# Fails when a crate that mlctl and the services share is asked for with other features by one than by the other.
# The first deploy builds mlctl, then the services: each such crate, and all that stand on it, is then built twice.
set -euo pipefail
cd "$(dirname "$0")/.."

crates() {
    cargo tree --locked --format "{p} {f}" "$@" --edges normal,build --prefix none --no-dedupe \
        | sed -E 's/ \(\*\)$//; s/ \((proc-macro|\/[^)]*)\)//g' | grep -v '^mlctl' | sort -u
}

services=()
for folder in services/*/; do
    [ "$folder" = services/kit/ ] || services+=(--package "$(basename "$folder")")
done
diff <(crates --package mlctl) <(crates "${services[@]}") | grep '^[<>]' | awk '{print $2, $3}' | sort | uniq -d \
    > target/other-features.txt || true
if [ -s target/other-features.txt ]; then
    echo "built twice, with other features for mlctl than for the services:" >&2
    cat target/other-features.txt >&2
    echo "make the features equal: see cli/mlctl/Cargo.toml and services/kit/Cargo.toml" >&2
    exit 1
fi
echo "mlctl and the services build their shared crates once"
