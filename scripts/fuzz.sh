#!/usr/bin/env bash
# Runs every fuzzer of a build for a while, one after another, each on its corpus. usage: fuzz.sh BUILD_DIR SECONDS
# New inputs go to BUILD_DIR/corpus/NAME; what crashes stays as BUILD_DIR/crash-*: make it a file of fuzz/corpus/NAME.
set -uo pipefail
build=${1:?build directory} seconds=${2:?seconds per fuzzer} failed=0 found=0
for fuzzer in "$build"/bin/fuzz_*; do
    [ -x "$fuzzer" ] || continue
    found=1
    name=$(basename "$fuzzer")
    seeds=fuzz/corpus/${name#fuzz_}
    mkdir -p "$build/corpus/$name"
    echo "$name: $seconds s"
    args=("$build/corpus/$name")
    [ -d "$seeds" ] && args+=("$seeds")
    "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/crash-$name-" "${args[@]}" 2>"$build/$name.log" || {
        failed=1
        tail -n 20 "$build/$name.log"
    }
    grep -E 'stat::number_of_executed_units' "$build/$name.log"
done
[ $found = 1 ] || { echo "no fuzzers in $build/bin: is clang there?"; exit 1; }
exit $failed
