# What run.sh and test.sh share: finding or installing what a build needs. Sourced, not run. Debian 12 and relatives.
# Everything here is quiet and quick when nothing is missing.

step() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() { printf 'dil: %s\n' "$*" >&2; exit 1; }
[ -t 2 ] || step() { printf '==> %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }
have_library() { have pkg-config && pkg-config --exists "$1" 2>/dev/null; }
have_python_module() { python3 -c "import $1" >/dev/null 2>&1; }

# version_at_least 1.95.0 1.87
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Debian packages that are missing for a build, one per line: a package is missing when what it is wanted for is.
missing_build_packages() {
    have gcc || have cc || have clang || echo gcc
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    have cmake || echo cmake
    have ninja || echo ninja-build
    have pkg-config || echo pkg-config
    have objdump || echo binutils
    have msgfmt && have xgettext || echo gettext
    have_library libpcre2-8 || echo libpcre2-dev
    have_library libutf8proc || echo libutf8proc-dev
    have_library libxxhash || echo libxxhash-dev
    have_library libzstd || echo libzstd-dev
    have_library jansson || echo libjansson-dev
    have_library libcurl || echo libcurl4-openssl-dev
    have_library gnutls || echo libgnutls28-dev
    have_library libedit || echo libedit-dev
    have_library cairo || echo libcairo2-dev
    have_library hwloc || echo libhwloc-dev
    have_library liburing || echo liburing-dev
    have python3 || echo python3
    have python3 && have_python_module pip || echo python3-pip
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

missing_test_packages() {
    have_library cmocka || echo libcmocka-dev
    have python3 && have_python_module ensurepip || echo python3-venv
    have scdoc || echo scdoc
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_updated=no
apt_update_once() {
    [ "$apt_updated" = yes ] && return 0
    as_root apt-get update -qq </dev/null >/dev/null 2>&1 || note "apt-get update failed; going on with the package lists at hand"
    apt_updated=yes
}

# install_packages NAME...: with apt, as root or through sudo; says what to do when neither is there.
install_packages() {
    [ $# -gt 0 ] || return 0
    have apt-get || die "missing: $*; this system has no apt-get: install their equivalents, then start again"
    [ "$(id -u)" = 0 ] || have sudo || die "missing: $*; as root: apt-get install $*"
    step "Installing packages: $*"
    apt_update_once
    mkdir -p build
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null \
        >build/apt.log 2>&1 || {
        tail -n 15 build/apt.log >&2
        die "apt-get could not install: $*"
    }
}

# The Rust bridge (chat templates) needs rustc >= this.
RUST_WANTED=1.87

rust_version() { rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }
rust_fits() { have cargo && have rustc && version_at_least "$(rust_version)" "$RUST_WANTED"; }

fetch_crates() { cargo fetch --locked --quiet "$@" --manifest-path bridge/Cargo.toml </dev/null >&2; }

# Sets BRIDGE to ON or OFF, installing Debian's newer Rust (rustc-web, cargo-web) when there is none at all.
choose_bridge() {
    BRIDGE=OFF
    [ -d "${HOME:-}/.cargo/bin" ] && PATH="$PATH:${HOME:-}/.cargo/bin"
    [ "${DIL_BRIDGE:-ON}" = OFF ] && { note "DIL_BRIDGE=OFF: built-in chat formats only"; return 0; }
    [ -e bridge/Cargo.toml ] || return 0
    if ! rust_fits && have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }; then
        apt_update_once
        local offered
        offered=$(apt-cache policy rustc-web 2>/dev/null | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p')
        if [ -n "$offered" ] && version_at_least "$offered" "$RUST_WANTED" && ! have cargo; then
            install_packages rustc-web cargo-web
        fi
    fi
    if ! rust_fits; then
        note "No Rust >= $RUST_WANTED (found: $(rust_version || true)${1:+, $1}): building without the bridge,"
        note "chat uses the built-in formats (ChatML, Llama 3, Gemma, Mistral, ...) instead of the model's own template."
    elif ! fetch_crates --offline 2>/dev/null && ! fetch_crates; then
        note "The crates of bridge/Cargo.lock cannot be fetched: building without the bridge (built-in chat formats)."
    else
        BRIDGE=ON
    fi
}

# At most one job per processor and per GB of memory.
build_jobs() {
    local processors memory
    processors=$(nproc 2>/dev/null || echo 2)
    memory=$(awk '/^MemAvailable:/ {print int($2 / 1000000)}' /proc/meminfo 2>/dev/null)
    [ -n "$memory" ] && [ "$memory" -ge 1 ] && [ "$memory" -lt "$processors" ] && processors=$memory
    echo "$processors"
}

# build DIR CMAKE_OPTION...: configures (again only when the options changed) and builds; quiet unless it fails (1).
# BUILD_TARGETS: what is built, instead of all.
build() {
    local directory=$1 options stamp log other
    shift
    mkdir -p "$directory"
    for other in build/*/bridge; do # the Rust part is the same in every build: a finished one is taken over
        [ -d "$other" ] && [ ! -d "$directory/bridge" ] && cp -a "$other" "$directory/bridge"
    done
    stamp=$directory/.options log=$directory/build.log
    options="$*"
    if [ ! -e "$directory/build.ninja" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$options" ]; then
        step "Configuring $directory"
        cmake -S . -B "$directory" -G Ninja "$@" </dev/null >"$log" 2>&1 || {
            tail -n 30 "$log" >&2
            note "cmake failed (all of its output: $log)"
            return 1
        }
        printf '%s' "$options" >"$stamp"
    fi
    [ -e "$directory/.built" ] || step "Building $directory"
    # shellcheck disable=SC2086  # a list of words
    cmake --build "$directory" -j "$(build_jobs)" ${BUILD_TARGETS:+--target $BUILD_TARGETS} </dev/null >"$log" 2>&1 || {
        grep -m 20 -A 6 -E 'error|FAILED' "$log" >&2 || tail -n 30 "$log" >&2
        note "the build failed (all of its output: $log)"
        return 1
    }
    : >"$directory/.built"
}

# ---- what the scripts for users build and fetch ----

RELEASE=build/release
DIL=$RELEASE/bin/dil
MODEL=smollm2

# Installs what is missing and builds build/release: the command, the library, the demos. Sets BRIDGE as choose_bridge does.
build_release() {
    local missing
    missing=$(missing_build_packages)
    # shellcheck disable=SC2086  # a list of words
    install_packages $missing
    # the choice is made once per build directory: a finished build answers at once
    if [ -z "${DIL_BRIDGE:-}" ] && [ -e "$DIL" ] && [ -e "$RELEASE/.options" ]; then
        BRIDGE=$(sed -n 's/.*-DDIL_BRIDGE=\(ON\|OFF\).*/\1/p' "$RELEASE/.options")
        [ -d "${HOME:-}/.cargo/bin" ] && PATH="$PATH:${HOME:-}/.cargo/bin"
    else
        choose_bridge
    fi
    build "$RELEASE" -DCMAKE_BUILD_TYPE=Release -DDIL_TESTS=OFF -DDIL_EXAMPLES=ON "-DDIL_BRIDGE=$BRIDGE" || exit 1
}

fetch_model() {
    "$DIL" show "$MODEL" >/dev/null 2>&1 && return 0
    step "Fetching the default model ($MODEL, about 100 MB, once)"
    "$DIL" pull "$MODEL" </dev/null >&2 || die "the model could not be fetched; try again with: $DIL pull $MODEL"
}
