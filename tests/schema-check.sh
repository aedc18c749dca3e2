#!/usr/bin/env bash
# Fails when a committed schema is not what the code says: `make schema` writes them anew.
set -euo pipefail
cd "$(dirname "$0")/.."
mlctl=target/release/mlctl
[[ -x $mlctl ]] || ${CARGO:-cargo} build --release --quiet -p mlctl
status=0
for format in system:mlctl playbook:playbook; do
	file=schema/${format##*:}.schema.json
	if ! diff -u "$file" <("$mlctl" config schema "${format%%:*}") >&2; then
		echo "schema-check: $file is not what the code says; run \`make schema\` and commit it" >&2
		status=1
	fi
done
exit $status
