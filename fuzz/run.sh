#!/usr/bin/env bash
# Builds the fuzz targets and runs them one after the other.
#
#   fuzz/run.sh SECONDS [TARGET...]     each target for so long; all of them when none is named
#   fuzz/run.sh minimize [TARGET...]    what the runs found that the seeds do not reach, as new seeds
#
# Needs nothing but Rust and a C++ compiler (`make fuzz` installs one). The stable toolchain
# builds with coverage counters because RUSTC_BOOTSTRAP=1 lets it; the flags are those of cargo-fuzz. What a run
# learns is kept in fuzz/corpus, what it breaks in fuzz/artifacts; neither is committed. MLCTL_FUZZ_ASAN=1 adds the
# address sanitizer.
set -euo pipefail
cd "$(dirname "$0")"

readonly all=(system playbook journal protocol plan units)
# Per input: seconds it may take, memory the process may use, bytes it may have.
readonly timeout=10 rss_mb=2048 most_bytes=16384

act=${1:-}
if [[ ! $act =~ ^([1-9][0-9]*|minimize)$ ]]; then
	echo "fuzz/run.sh ${act:-with nothing}: expected SECONDS or minimize, then targets: ${all[*]}" >&2
	exit 2
fi
shift
targets=("${@:-${all[@]}}")
if (($# == 0)); then targets=("${all[@]}"); fi
for target in "${targets[@]}"; do
	if [[ ! " ${all[*]} " == *" $target "* ]]; then
		echo "fuzz/run.sh: no target $target; there are ${all[*]}" >&2
		exit 2
	fi
done

host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
flags+=" -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
if [[ ${MLCTL_FUZZ_ASAN:-} == 1 ]]; then flags+=" -Zsanitizer=address"; fi
# For the host named, so that build scripts and macros are built without the counters.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags "${CARGO:-cargo}" build --release --locked --target "$host" --bins
bin=target/$host/release

# Folders of seeds: those of the target, and the fixtures that people's mistakes are kept in.
seeds() {
	echo "seeds/$1"
	case $1 in
	system | playbook | plan) echo ../cli/core/tests/fixtures/broken ;;
	esac
}

minimize() {
	local target=$1 new=target/merged/$1 unit
	rm -rf "$new" && mkdir -p "$new" "corpus/$target"
	# Seeds first: of the corpus only what reaches more than they do is added.
	mapfile -t folders < <(seeds "$target")
	for folder in "${folders[@]}"; do find "$folder" -maxdepth 1 -type f ! -name '*.snap' -exec cp -t "$new" {} +; done
	"$bin/$target" -merge=1 -timeout=$timeout -rss_limit_mb=$rss_mb -max_len=1024 "$new" "corpus/$target" \
		>"target/$target.log" 2>&1
	local added=0
	for unit in "$new"/*; do
		if [[ $(basename "$unit") =~ ^[0-9a-f]{40}$ && $added -lt ${MLCTL_FUZZ_SEEDS:-60} && ! -e seeds/$target/$(basename "$unit") ]]; then
			cp "$unit" "seeds/$target/"
			added=$((added + 1))
		fi
	done
	echo "minimize $target: $added seeds added, $(find "seeds/$target" -type f | wc -l) in all"
}

failed=0
run() {
	local target=$1 seconds=$2 log=target/$1.log code=0 from=$SECONDS
	mkdir -p "corpus/$target" "artifacts/$target"
	touch "target/$target.began"
	mapfile -t folders < <(seeds "$target")
	local dictionary=()
	if [[ -e dictionaries/$target ]]; then dictionary=("-dict=dictionaries/$target"); fi
	"$bin/$target" "${dictionary[@]}" -max_total_time="$seconds" -timeout=$timeout -rss_limit_mb=$rss_mb \
		-max_len=$most_bytes -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
		"corpus/$target" "${folders[@]}" >"$log" 2>&1 || code=$?
	local stat executions rate slowest
	stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
	executions=$(stat number_of_executed_units) rate=$(stat average_exec_per_sec) slowest=$(stat slowest_unit_time_sec)
	printf 'fuzz %-9s %5d s, %9s executions, %6s a second, %5d inputs in the corpus, peak %s MB, slowest %s s, %s crashes\n' \
		"$target" $((SECONDS - from)) "${executions:-?}" "${rate:-?}" "$(find "corpus/$target" -type f | wc -l)" \
		"$(stat peak_rss_mb)" "${slowest:-?}" "$(find "artifacts/$target" -type f -newer "target/$target.began" | wc -l)"
	if ((code != 0)); then
		failed=1
		echo "fuzz $target ended with $code; the end of fuzz/$log:" >&2
		tail -n 30 "$log" >&2
	fi
}

for target in "${targets[@]}"; do
	if [[ $act == minimize ]]; then minimize "$target"; else run "$target" "$act"; fi
done
exit $failed
