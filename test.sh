#!/usr/bin/env bash
# Everything that must hold: builds into build/test, runs ctest and the source checks; with --asan, --tsan or CI=true also
# the sanitizer builds. Installs what is missing (apt, and Python packages into build/venv). Ends with one line:
# 'N passed, N failed, N skipped'; the exit code is 0 when nothing failed.
#   bash test.sh [--asan] [--tsan] [--no-python] [-R REGEX]     REGEX: only the ctest tests whose name matches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/setup.sh
. scripts/setup.sh

asan=no tsan=no python=yes only=. werror=OFF
[ "${CI:-}" = true ] && asan=yes tsan=yes werror=ON
while [ $# -gt 0 ]; do
    case $1 in
        --asan) asan=yes ;;
        --tsan) tsan=yes ;;
        --no-python) python=no ;;
        -R) shift; only=${1:?-R needs a regular expression} ;;
        -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) die "unknown argument $1; bash test.sh --help" ;;
    esac
    shift
done

only_unit=$only
[ "$only" = . ] && only_unit='^(test_|checkkernels_|fuzz_)'
threaded='^test_.*(base|thread|engine|session|compute|theorem|pool|experts|train_run)' # what ThreadSanitizer looks at
checks_passed=0 checks_failed=0 logs=()

# check NAME COMMAND...: one source check; goes on when it fails.
check() {
    local name=$1
    shift
    if "$@"; then
        checks_passed=$((checks_passed + 1))
    else
        checks_failed=$((checks_failed + 1))
        note "FAILED: $name"
    fi
}

# Python with the oracles, in a virtual environment that is made again when the list of packages changes.
prepare_python() {
    local stamp=build/venv/.requirements
    PYTHON=python3
    [ $python = yes ] || return 0
    if ! cmp -s tests/requirements.txt "$stamp"; then
        step "Python packages into build/venv: $(sed -n "s/==.*//p" tests/requirements.txt | tr "\n" " ")"
        rm -rf build/venv
        mkdir -p build
        if python3 -m venv build/venv && build/venv/bin/pip install --quiet -r tests/requirements.txt </dev/null >&2; then
            cp tests/requirements.txt "$stamp"
        else
            note "no Python packages: the tests that need them skip"
            return 0
        fi
    fi
    PYTHON=$PWD/build/venv/bin/python
    export PATH="$PWD/build/venv/bin:$PATH"
}

# The sanitizers of gcc 12 need the address layout of older kernels: without randomisation where that may be chosen.
plain_addresses=(env)
setarch "$(uname -m)" -R true 2>/dev/null && plain_addresses=(setarch "$(uname -m)" -R)

# run_ctest DIR REGEX [CTEST_OPTION...]: shows the output of failing tests, remembers the log for the count.
run_ctest() {
    local directory=$1 regex=$2
    shift 2
    rm -f "$directory/Testing/Temporary/LastTest.log"
    step "ctest in $directory"
    (cd "$directory" && "${plain_addresses[@]}" ctest --output-on-failure -j "$(build_jobs)" -R "$regex" --no-tests=ignore "$@" </dev/null) ||
        note "FAILED: some tests in $directory"
    [ -e "$directory/Testing/Temporary/LastTest.log" ] && logs+=("$directory/Testing/Temporary/LastTest.log")
    return 0
}

# sanitized_build DIR SANITIZERS [CMAKE_OPTION...]
sanitized_build() {
    local directory=$1 sanitizers=$2
    shift 2
    check "build with $sanitizers" build "$directory" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        "-DDIL_SANITIZE=$sanitizers" "-DDIL_BRIDGE=$BRIDGE" "-DDIL_PYTHON=$PYTHON" "$@"
}

main() {
    local missing
    missing="$(missing_build_packages) $(missing_test_packages)"
    # shellcheck disable=SC2086  # a list of words
    install_packages $missing
    choose_bridge
    prepare_python
    [ -z "${DIL_SHARED:-}" ] && [ -d ../shared ] && DIL_SHARED=$(cd ../shared && pwd)
    [ -n "${DIL_SHARED:-}" ] && export DIL_SHARED

    check build build build/test -DCMAKE_BUILD_TYPE=Release "-DDIL_WERROR=$werror" "-DDIL_BRIDGE=$BRIDGE" "-DDIL_PYTHON=$PYTHON"
    step "Source checks"
    check layers python3 scripts/check_layers.py
    check sizes python3 scripts/check_sizes.py
    check source python3 scripts/check_source.py
    check isa python3 scripts/check_isa.py build/test
    check docs python3 scripts/check_docs.py $([ -x build/test/bin/dil ] && echo --binary build/test/bin/dil)
    check translations python3 scripts/check_translations.py
    check checks python3 scripts/test_checks.py
    run_ctest build/test "$only"

    if [ $asan = yes ]; then
        sanitized_build build/asan address,undefined -DDIL_FUZZ=ON # the fuzzers replay their corpus
        ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 run_ctest build/asan "$only_unit"
    fi
    if [ $tsan = yes ]; then
        BUILD_TARGETS=$(basename -s .c tests/unit/test_*.c | grep -E "$threaded") sanitized_build build/tsan thread
        TSAN_OPTIONS=halt_on_error=1 run_ctest build/tsan "$threaded"
    fi
    python3 scripts/count_tests.py $checks_passed $checks_failed "${logs[@]}"
}

main
