#!/usr/bin/env bash
# The four demos, each in C and in Python: installs what is missing, builds, fetches SmolLM2 once (100 MB), runs all eight programs
# (some minutes on two cores) and writes one page with everything they told and drew: build/demos/out/index.html.
#   bash run_demos.sh              both languages
#   bash run_demos.sh --c          only the C programs (in English)
#   bash run_demos.sh --python     only the Python programs (in Turkish)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/setup.sh
. scripts/setup.sh

DEMOS="nash_suru_moe kuantizasyon cpu_optimizer tam_sistem"
OUT=build/demos/out
VENV=build/demos/venv
languages="c python"
case ${1:-} in
    "") ;;
    --c) languages=c ;;
    --python) languages=python ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown argument $1; bash run_demos.sh --help" ;;
esac

# The Python package in an environment of its own, installed again when the sources are newer.
prepare_python() {
    local stamp=$VENV/.installed
    [ -e "$stamp" ] && [ -z "$(find src include python cmake pyproject.toml -newer "$stamp" -type f ! -name '*.pyc' -print -quit)" ] && return 0
    have_python_module ensurepip || install_packages python3-venv
    step "Installing the Python package into $VENV (builds the library once more: some minutes)"
    [ -x $VENV/bin/pip ] || python3 -m venv $VENV || die "no virtual environment could be made in $VENV"
    CMAKE_BUILD_PARALLEL_LEVEL=$(build_jobs) $VENV/bin/pip install --quiet -C build-dir=build/demos/wheel -C "cmake.define.DIL_BRIDGE=$BRIDGE" . \
        </dev/null >build/demos/pip.log 2>&1 || {
        tail -n 20 build/demos/pip.log >&2
        die "pip could not install the package (all of its output: build/demos/pip.log)"
    }
    : >"$stamp"
}

# run_demo LANGUAGE NAME: shows the story and keeps it beside its pictures. What demos measure and tune stays in build/demos.
run_demo() {
    local folder=$OUT/$2-$1 program=("$RELEASE/bin/$2")
    [ "$1" = python ] && program=($VENV/bin/python "examples/$2.py")
    rm -rf "$folder"
    mkdir -p "$folder"
    step "${program[*]}"
    XDG_CACHE_HOME=$PWD/build/demos/cache "${program[@]}" "$folder" </dev/null | tee "$folder/story.txt" || failed="$failed $2 ($1)"
    echo
}

main() {
    local language demo failed=
    build_release
    fetch_model
    mkdir -p $OUT
    case $languages in *python*) prepare_python ;; esac
    for demo in $DEMOS; do
        for language in $languages; do
            run_demo "$language" "$demo"
        done
    done
    python3 scripts/demo_page.py $OUT
    [ -z "$failed" ] || die "these ended with an error:$failed"
}

main
