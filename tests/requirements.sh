#!/usr/bin/env bash
# Installs from Debian what the tests need and is missing; says what else a machine lacks. Idempotent and quick.
set -euo pipefail

# What is looked for, and the package that has it.
needs=(bash:bash cc:gcc c++:g++ make:make curl:curl jq:jq python3:python3 openssl:openssl git:git strace:strace unshare:util-linux)
missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done

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
		echo "requirements: installing ${missing[*]}"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null
	elif sudo -n true 2>/dev/null; then
		echo "requirements: installing ${missing[*]}"
		sudo apt-get update -qq
		sudo DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null
	else
		echo "requirements: ${missing[*]} missing; run: sudo ${install[*]}" >&2
		exit 1
	fi
fi

command -v "${CARGO:-cargo}" >/dev/null || {
	echo "requirements: no cargo; install Rust from https://rustup.rs (rust-toolchain.toml picks the version)" >&2
	exit 1
}

# Suites against a real Kubernetes, Swarm and Kafka need these; the suites of this version do not.
for tool in "go:Go 1.26" "javac:JDK 17" "mvn:Maven"; do
	command -v "${tool%%:*}" >/dev/null || echo "requirements: ${tool##*:} is not here; no suite of this version needs it"
done
echo "requirements: everything the tests need is here"
