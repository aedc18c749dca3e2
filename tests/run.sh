#!/usr/bin/env bash
# Everything that says whether this tree is good, in stages; stops at the first stage that fails.
#
#   tests/run.sh short        what `make test` and CI run: no cluster, no network besides crates
#   tests/run.sh full         the same with every end-to-end case at full length
#   tests/run.sh e2e-local    only the end-to-end suite of the embedded target
#   tests/run.sh e2e-fire     only the same target under fire, at full length
#   tests/run.sh e2e-services only the services on real servers, at full length
set -euo pipefail
cd "$(dirname "$0")/.."

length=${1:-short}
case $length in
short | full | e2e-local | e2e-fire | e2e-services) ;;
*)
	echo "tests/run.sh $length: expected short, full, e2e-local, e2e-fire or e2e-services" >&2
	exit 2
	;;
esac
# Where a case has two lengths, only `make test` and CI run the short one.
export MLCTL_TEST_LENGTH=full
if [[ $length == short ]]; then MLCTL_TEST_LENGTH=short; fi
cargo=${CARGO:-cargo}
began=$SECONDS
summary=()

# A stage is a title and a command; how long it took is told at once and again at the end.
stage() {
	local title=$1 from=$SECONDS
	shift
	printf '\n=== %s: %s\n' "$title" "$*"
	if ! "$@"; then
		printf '\n'
		if ((${#summary[@]})); then printf '%s\n' "${summary[@]}"; fi
		printf 'FAILED  %s after %d s; again with: %s\n' "$title" $((SECONDS - from)) "$*" >&2
		exit 1
	fi
	local line
	printf -v line 'passed  %-26s %5d s' "$title" $((SECONDS - from))
	summary+=("$line")
	printf '=== %s\n' "$line"
}

docs() {
	RUSTDOCFLAGS="-D warnings" "$cargo" doc --workspace --no-deps --document-private-items --quiet
}

# The services are built by mlctl, as a person's first deploy builds them: a dry run plans and changes nothing.
services_through_mlctl() {
	local folder
	folder=$(mktemp -d)
	MLCTL_STATE=$folder/state MLCTL_LOCAL=$folder/local XDG_RUNTIME_DIR=$folder \
		target/release/mlctl deploy --dry-run --quiet >"$folder/plan" || {
		cat "$folder/plan"
		rm -rf "$folder"
		return 1
	}
	MLCTL_STATE=$folder/state MLCTL_LOCAL=$folder/local XDG_RUNTIME_DIR=$folder \
		target/release/mlctl down --purge --yes --quiet || return 1
	rm -rf "$folder"
	ls target/release/{user,integration,catalog,analytics}-service target/release/gateway target/release/ml-api-sim
}

# Real PostgreSQL, Redis, Kafka and a stand-in for MongoDB: what they are made of, the harness that disturbs them, the
# services' tests that need them, and a user's journey over all.
on_real_servers() {
	local kinds=postgresql,redis,kafka,mongodb cases=()
	if [[ $length == short ]]; then
		# What every Debian has: nothing to download or build, nothing that starts slowly, nothing that needs root.
		kinds=postgresql,redis
		cases=(disturbed::postgresql disturbed::a_killed_postgresql disturbed::redis ended::)
		echo "not in make test, but in make test-full: what needs Kafka or MongoDB, the flood, and the journey"
	elif [[ $length == full ]] && ((EUID != 0)); then
		kinds=postgresql,redis,kafka
		cases=(disturbed::postgresql disturbed::a_killed_postgresql disturbed::redis disturbed::kafka ended::)
		echo "NOT RUN: what needs MongoDB, and the journey; its stand-in needs a chroot, which only root may make and enter"
	elif ! bash tests/requirements.sh services; then
		echo "tests/run.sh $length: the services on real servers cannot run, as said above" >&2
		exit 1
	fi
	local stores=${CARGO_TARGET_DIR:-target}/debug/stores
	stage "stores, built" "$cargo" build --quiet -p mlctl-tests --bin stores
	stage "stores, prepared" "$stores" prepare --only "$kinds"
	# In the words of the stage before it, so that nothing is built twice.
	local selection=()
	if [[ $length != e2e-* ]]; then selection=(--workspace --all-features --exclude mlctl-tests); fi
	stage "services, real servers" "$stores" run --only "$kinds" -- bash tests/real-servers.sh "${selection[@]}"
	stage "deploy --stores real" "$cargo" test -p mlctl-tests --test local -- --ignored servers:: --test-threads=1 --show-output
	stage "stores and the journey" "$cargo" test -p mlctl-tests --test services -- \
		--test-threads=1 --show-output "${cases[@]}"
}

if [[ $length != e2e-* ]]; then
	stage "format" "$cargo" fmt --all --check
	stage "lints" "$cargo" clippy --workspace --all-targets --all-features --quiet -- -D warnings
	stage "unit and integration" "$cargo" test --workspace --all-features --exclude mlctl-tests --quiet
	stage "documentation" docs
	stage "one build of shared crates" bash tests/same-features.sh
fi
if [[ $length == e2e-services ]]; then
	stage "services, release build" "$cargo" build --release --quiet -p "*-service" -p gateway -p ml-api-sim
	on_real_servers
	printf '\n'
	printf '%s\n' "${summary[@]}"
	printf 'passed  %-26s %5d s\n' "everything ($length)" $((SECONDS - began))
	exit
fi
stage "mlctl, release build" "$cargo" build --release --quiet -p mlctl
if [[ $length != e2e-* ]]; then
	stage "schemas" bash tests/schema-check.sh
fi
stage "services, built by mlctl" services_through_mlctl
if [[ $length != e2e-* ]]; then
	stage "release archive" bash tests/dist.sh
	# The one suite that needs a package of Python's registry, so not part of `make test`.
	if [[ $length == full ]]; then
		stage "OpenAPI, schemathesis" bash tests/openapi.sh
	else
		echo "not in make test, but in make test-full: the services asked by schemathesis"
	fi
	stage "tidy" "$cargo" test -p mlctl-tests --quiet --lib --bins --test tidy
	on_real_servers
fi
# What measures runs alone; what waits for replicas most of the time does so side by side.
if [[ $length != e2e-fire ]]; then
	e2e=("$cargo" test -p mlctl-tests --test local --)
	stage "end to end, acts" "${e2e[@]}" --test-threads=2 --show-output --skip kpis:: --skip rollouts:: --skip shipped::
	stage "end to end, measured" "${e2e[@]}" --test-threads=1 --show-output kpis:: rollouts:: shipped::
fi
# Under fire, one at a time: each case has the machine for itself. Disks that cases mount are those of a namespace of
# their own, so that whoever interrupts the suite leaves none behind.
if [[ $length != e2e-local ]]; then
	fire=("$cargo" test -p mlctl-tests --test fire -- --test-threads=1 --show-output)
	root=(unshare --mount)
	if ! unshare --mount --uts true 2>/dev/null; then
		echo "NOT RUN: what gives a process another host name or a disk of its own; that needs root, and leave to do so"
		root=()
		fire+=(--skip a_lost_home_and_another_host --skip died_elsewhere --skip environment:: --skip broken::starved)
	fi
	if [[ $length == short ]]; then
		echo "not in make test, but in make test-full: broken, environment, kills, locks and verdicts of --test fire"
		stage "under fire, short" "${root[@]}" "${fire[@]}" codes:: crash:: records::
	else
		stage "under fire" "${root[@]}" "${fire[@]}"
	fi
fi

printf '\n'
printf '%s\n' "${summary[@]}"
printf 'passed  %-26s %5d s\n' "everything ($length)" $((SECONDS - began))
