#!/usr/bin/env bash
# Runs the tests of the services that need real servers, on the servers of the environment:
#
#   stores run -- bash tests/real-servers.sh [SELECTION]
#
# SELECTION is cargo's, where the packages are built already in other words than the packages' own.
# A package of which no such test ran fails the whole: what is not run must not look green. PostgreSQL and Redis are
# always needed; tests of a server that was not started are left out by name, and told.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
packages=(service-kit user-service integration-service analytics-service mlctl-stores)
left_out=()
if [[ -z ${MLCTL_TEST_KAFKA_BROKERS:-} ]]; then
	echo "NOT RUN: what needs Kafka: consuming, killed, and publishing to it"
	left_out+=(--skip consuming:: --skip killed:: --skip kafka:: --skip kafka_)
fi
if [[ -n ${MLCTL_TEST_MONGODB_URL:-} ]]; then
	packages+=(catalog-service)
else
	echo "NOT RUN: what needs MongoDB: catalog-service on it"
	left_out+=(--skip mongo:: --skip outage::)
fi
if [[ ${MLCTL_TEST_LENGTH:-full} == short ]]; then
	echo "NOT RUN: the flood while PostgreSQL hangs, which takes long"
	left_out+=(--skip flood::)
fi
chosen=()
for package in "${packages[@]}"; do chosen+=(--package "$package"); done
if (($#)); then chosen=("$@"); fi
chosen+=(--lib --bins --tests)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Which test program belongs to which package.
"$cargo" test --no-run --quiet --message-format=json "${chosen[@]}" |
	jq -r 'select(.executable != null and .profile.test) | "\(.package_id) \(.executable)"' |
	sed -E 's/^[^ ]*[/#]([a-z-]+)[#@][^ ]* /\1 /' >"$folder/programs"

# Programs run one after the other, and two tests of one at a time: several of them kill and pause what they have.
code=0
"$cargo" test --no-fail-fast "${chosen[@]}" -- --ignored --test-threads=2 "${left_out[@]}" 2>&1 | tee "$folder/log" || code=$?

# `Running ... (target/debug/deps/NAME-HASH)` and, behind it, `test result: ok. N passed; ...`.
awk -v programs="$folder/programs" '
	BEGIN { while ((getline line < programs) > 0) { split(line, word, " "); n = split(word[2], part, "/"); of[part[n]] = word[1] } }
	/^ +Running / { n = split($NF, part, "/"); sub(/\)$/, "", part[n]); package = of[part[n]] }
	/^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^passed/) ran[package] += $i; else if ($(i + 1) ~ /^failed/) ran[package] += $i }
	END { for (package in ran) if (package != "") print package, ran[package] }
' "$folder/log" >"$folder/ran"
total=0
for package in "${packages[@]}"; do
	ran=$(awk -v package="$package" '$1 == package { print $2 }' "$folder/ran")
	printf '%-22s %4d tests on real servers\n' "$package" "${ran:-0}"
	total=$((total + ${ran:-0}))
	if ((${ran:-0} == 0)); then
		echo "real-servers: no test of $package ran on a real server" >&2
		((code)) || code=1
	fi
done
printf '%-22s %4d\n' together "$total"
exit "$code"
