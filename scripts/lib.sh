# Shared by the scripts beside it; sourced, never run. Says what it does on standard error.
# shellcheck shell=bash

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck disable=SC2034  # the scripts use it
target=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

say() { printf '\n== %s\n' "$*" >&2; }
note() { printf '   %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# need PACKAGE=TEST...: installs the Debian packages whose test (a command's name, or an absolute path) fails.
need() {
    local pair missing=()
    for pair; do
        local package=${pair%%=*} test=${pair#*=}
        case $test in
        /*) [[ -e $test ]] || missing+=("$package") ;;
        *) has "$test" || missing+=("$package") ;;
        esac
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    has apt-get || die "missing: ${missing[*]}" "install them with your package manager and start again"
    [[ $(id -u) = 0 ]] || die "missing: ${missing[*]}" "as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# Every tracked or new shell script of the project.
shell_scripts() {
    git ls-files --cached --others --exclude-standard -- scripts .ci | while read -r file; do
        [[ -e $file ]] && head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh|shellcheck|^# Shared' && echo "$file"
    done
}
