#!/usr/bin/env bash
# Fails when a crate that mlctl and the services share is asked for with other features by one than by the other.
# The first deploy builds mlctl, then the services: each such crate, and all that stand on it, is then built twice.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

crates() {
    cargo tree --locked --format "{p} {f}" "$@" --edges normal,build --prefix none --no-dedupe \
        | sed -E 's/ \(\*\)$//; s/ \((proc-macro|\/[^)]*)\)//g' | grep -v '^mlctl' | sort -u
}

services=()
for folder in services/*/; do
    # Neither is a service; the second is built for tests only.
    case $folder in services/kit/ | services/openapi/) continue ;; esac
    services+=(--package "$(basename "$folder")")
done
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
# Into files, not process substitutions: a cargo tree that fails has to fail this script too.
crates --package mlctl >"$lists/mlctl"
crates "${services[@]}" >"$lists/services"
# Name, version and features stand on a line. A crate that both have, with lines that only one has, is built twice.
names() { awk '{print $1, $2}' | sort -u; }
comm -12 <(comm -23 "$lists/mlctl" "$lists/services" | names) <(comm -13 "$lists/mlctl" "$lists/services" | names) \
    >"$lists/other"
if [ "$(comm -12 "$lists/mlctl" "$lists/services" | wc -l)" -eq 0 ]; then
    echo "mlctl and the services share no crate at all: this check looks at the wrong thing" >&2
    exit 1
fi
if [ -s "$lists/other" ]; then
    echo "built twice, with other features for mlctl than for the services:" >&2
    cat "$lists/other" >&2
    echo "make the features equal: see cli/mlctl/Cargo.toml and services/kit/Cargo.toml" >&2
    exit 1
fi
echo "mlctl and the services build their shared crates once"
