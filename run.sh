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

main() {
    local command=chat names_model=no argument
    for argument in "$@"; do
        case $argument in
            -m | --model | -m=* | --model=*) names_model=yes ;;
            -p | --prompt | -f | --file) command=run ;;
        esac
    done
    build_release
    if [ $names_model = no ]; then
        fetch_model
        set -- -m "$MODEL" "$@"
    fi
    if [ $command = chat ] && ! { [ -t 0 ] && [ -t 1 ]; }; then
        step "No terminal: one sample answer. In a terminal this opens a conversation."
        exec "$DIL" run -p "Give me three tips for sleeping well." -n 120 --temp 0 "$@" </dev/null
    fi
    exec "$DIL" "$command" "$@"
}

main "$@"
