# Sourced by the other scripts: `ensure_env EXTRAS` makes or reuses the checkout's .venv with `fastdl[EXTRAS]`.
#
# The environment is reinstalled only when pyproject.toml or the set of extras changes. Install output goes to
# .venv/install.log, so that what the script itself prints stays readable; it is shown when the install fails.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return 0
    done
    return 1
}

ensure_env() {
    local extras=$1 wanted stamp python
    if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
        python=$(find_python) || die "expected Python 3.10 or newer on the PATH and found none; install it or set PYTHON=/path/to/python3"
        say "making a virtual environment in .venv with $("$python" --version)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV" ||
            die "'$python -m venv' failed; on Debian and Ubuntu 'apt-get install python3-venv' provides it"
    fi
    stamp="$VENV/installed-$extras"
    wanted=$(cat "$ROOT/pyproject.toml" "$ROOT/scripts/_setup.sh" | cksum)
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$ROOT $wanted" ]; then
        say "installing fastdl[$extras] into .venv (once; the log is .venv/install.log)"
        if ! "$VENV/bin/python" -m pip install --disable-pip-version-check -e "$ROOT[$extras]" >"$VENV/install.log" 2>&1; then
            tail -n 15 "$VENV/install.log" >&2
            die "the install failed; the lines above are the end of .venv/install.log"
        fi
        printf '%s' "$ROOT $wanted" >"$stamp"
    fi
}
