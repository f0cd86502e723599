#!/usr/bin/env bash
# From a fresh clone to a conversation: installs what is missing, builds, fetches the default model once, starts the chat.
#   bash run.sh                         chat with SmolLM2-135M-Instruct
#   bash run.sh -m other.gguf           chat with another model
#   bash run.sh -p "Why is the sky blue?"     one answer instead of a conversation
# Without a terminal it prints one sample answer. Arguments go to `dil chat` (with -p or -f: to `dil run`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/setup.sh
. scripts/setup.sh

BUILD=build/release
DIL=$BUILD/bin/dil
MODEL=smollm2

prepare() {
    local missing
    missing=$(missing_build_packages)
    # shellcheck disable=SC2086  # a list of words
    install_packages $missing
    # the choice is made once per build directory: a finished build answers at once
    if [ -z "${DIL_BRIDGE:-}" ] && [ -e "$DIL" ] && [ -e "$BUILD/.options" ]; then
        BRIDGE=$(sed -n 's/.*-DDIL_BRIDGE=\(ON\|OFF\).*/\1/p' "$BUILD/.options")
        [ -d "${HOME:-}/.cargo/bin" ] && PATH="$PATH:${HOME:-}/.cargo/bin"
    else
        choose_bridge
    fi
    build "$BUILD" -DCMAKE_BUILD_TYPE=Release -DDIL_TESTS=OFF "-DDIL_BRIDGE=$BRIDGE" || exit 1
}

fetch_default_model() {
    "$DIL" show "$MODEL" >/dev/null 2>&1 && return 0
    step "Fetching the default model ($MODEL, about 100 MB, once)"
    "$DIL" pull "$MODEL" </dev/null >&2 || die "the model could not be fetched; try again with: $DIL pull $MODEL"
}

main() {
    local command=chat names_model=no argument
    for argument in "$@"; do
        case $argument in
            -m | --model | -m=* | --model=*) names_model=yes ;;
            -p | --prompt | -f | --file) command=run ;;
        esac
    done
    prepare
    if [ $names_model = no ]; then
        fetch_default_model
        set -- -m "$MODEL" "$@"
    fi
    if [ $command = chat ] && ! { [ -t 0 ] && [ -t 1 ]; }; then
        step "No terminal: one sample answer. In a terminal this opens a conversation."
        exec "$DIL" run -p "Give me three tips for sleeping well." -n 120 --temp 0 "$@" </dev/null
    fi
    exec "$DIL" "$command" "$@"
}

main "$@"
