#!/usr/bin/env bash
# Installs from Debian what the tests need and is missing; says what else a machine lacks. Idempotent and quick.
set -euo pipefail

# What is looked for, and the package that has it.
needs=(bash:bash cc:gcc c++:g++ make:make curl:curl jq:jq python3:python3 openssl:openssl git:git strace:strace
	unshare:util-linux setpriv:util-linux ipcrm:util-linux redis-server:redis-server psql:postgresql-client java:default-jre-headless mvn:maven
	kcat:kcat)
# A chroot of what Debian stable has not; only root may make one and enter it.
if ((EUID == 0)); then needs+=(mmdebstrap:mmdebstrap); fi
missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
# Beside what is called by name: the server's programs.
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)

# Moves the clock of single processes; a library, so it is looked for as a file.
compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' >/dev/null ||
	compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)

# Debian has the module that makes virtual environments apart from Python.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if ((${#missing[@]})); then
	install=(apt-get install -y --no-install-recommends "${missing[@]}")
	if ! command -v apt-get >/dev/null; then
		echo "requirements: ${missing[*]} missing; install them with this system's package manager" >&2
		exit 1
	elif ((EUID == 0)); then
		as_root=(env)
	elif sudo -n true 2>/dev/null; then
		as_root=(sudo)
	else
		echo "requirements: ${missing[*]} missing; run: sudo ${install[*]}" >&2
		exit 1
	fi
	echo "requirements: installing ${missing[*]}"
	# Debian's packages of servers begin to serve when they are installed, and PostgreSQL's makes a database first. The
	# tests start servers of their own: while this installs, none is started, and no database made.
	policy=/usr/sbin/policy-rc.d
	clusters=/etc/postgresql-common/createcluster.d/mlctl-tests.conf
	restore() {
		if [[ -n ${placed:-} ]]; then "${as_root[@]}" rm -f "$policy"; fi
		"${as_root[@]}" rm -f "$clusters"
	}
	trap restore EXIT
	if [[ ! -e $policy ]]; then
		placed=yes
		printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
		"${as_root[@]}" chmod 755 "$policy"
	fi
	"${as_root[@]}" mkdir -p "${clusters%/*}"
	echo "create_main_cluster = false" | "${as_root[@]}" tee "$clusters" >/dev/null
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null
	restore
	trap - EXIT
fi

command -v "${CARGO:-cargo}" >/dev/null || {
	echo "requirements: no cargo; install Rust from https://rustup.rs (rust-toolchain.toml picks the version)" >&2
	exit 1
}

# What no package of Debian stable brings, and what cannot run without it: `make e2e-services` fails then, and
# `make test` says so where it leaves the suite out.
without=()
go_is() { command -v go >/dev/null && [[ $(go env GOVERSION 2>/dev/null) =~ ^go1\.(2[4-9]|[3-9][0-9]) ]]; }
go_is || without+=("Go 1.24 or newer is not here: no stand-in for MongoDB")
((EUID == 0)) || without+=("this is not root: no chroot, so no stand-in for MongoDB")
java_is() { [[ $(java -version 2>&1) =~ version\ \"(1[7-9]|[2-9][0-9]) ]]; }
java_is || without+=("Java 17 or newer is not here: no Kafka")
for reason in "${without[@]}"; do
	echo "requirements: $reason; make e2e-services cannot run"
done
# The clusters' own suites.
command -v javac >/dev/null || echo "requirements: JDK 17 is not here; no suite of this version needs it"
if ((${#without[@]} == 0)); then
	echo "requirements: everything the tests need is here"
elif [[ ${1:-} == services ]]; then
	exit 1
fi
