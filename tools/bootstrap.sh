#!/bin/sh
# Prepare the virtual environment .venv for one purpose, and do nothing when it is ready.
#
#   tools/bootstrap.sh demo    what `everpool demo` needs
#   tools/bootstrap.sh dev     that, and what the tests and the checks need
#
# PYTHON=... chooses the interpreter; otherwise the first suitable one is taken.
set -eu

cd "$(dirname "$0")/.."
purpose=$1
python=${PYTHON:-}
venv=.venv

fail() {
    echo "error: $*" >&2
    exit 1
}

# A name on PATH may be a launcher for a version that is not installed, so each one is run.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Debian splits the standard library: without its python3-venv there is no ensurepip.
has_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

find_python() {
    found=
    for candidate in ${python:-python3.13 python3.12 python3.11 python3 python}; do
        is_new_enough "$candidate" || continue
        found=$candidate
        if has_venv "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "$found" ]; then
        fail "$found has no venv module: install it (on Debian: apt install python3-venv)"
    fi
    if [ -n "$python" ]; then
        fail "$python is not a working Python 3.11 or newer"
    fi
    fail "no Python 3.11 or newer: install one (on Debian 12: apt install python3 python3-venv)"
}

# What the environment was built from. The folder is part of it because scripts in the
# environment hold its full path.
fingerprint() {
    echo "$PWD" "$python"
    cat requirements-demo.txt pyproject.toml
    if [ "$1" = dev ]; then
        cat requirements-dev.txt
    fi
}

is_ready() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' >/dev/null 2>&1 &&
        [ -f "$venv/$1.stamp" ] && fingerprint "$1" | cmp -s - "$venv/$1.stamp"
}

case $purpose in
    demo | dev) requirements=requirements-$purpose.txt ;;
    *) fail "usage: tools/bootstrap.sh demo|dev" ;;
esac

if is_ready "$purpose" || { [ "$purpose" = demo ] && is_ready dev; }; then
    exit 0
fi

interpreter=$(find_python)
if ! is_ready demo; then
    # Other pins, another interpreter or a moved folder: nothing of the old one is kept.
    rm -rf "$venv"
    "$interpreter" -m venv "$venv" ||
        fail "$interpreter could not create $venv (on Debian: apt install python3-venv)"
fi
echo "Installing $requirements into $venv with $("$venv/bin/python" -V) ..." >&2
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"
# Left uncompiled: Python compiles what is really imported, when it is.
$pip install --no-compile -r "$requirements" ||
    fail "could not install $requirements: see pip's message above"
# Hatchling is among the requirements, so this step needs no network.
$pip install --no-deps --no-build-isolation --editable . ||
    fail "could not install everpool into $venv: see pip's message above"
fingerprint "$purpose" >"$venv/$purpose.stamp"
# Whatever is in the requirements for developers includes those of the demo.
fingerprint demo >"$venv/demo.stamp"
