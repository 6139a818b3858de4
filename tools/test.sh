#!/usr/bin/env bash
# Run the tests: in two processes, because most of them wait, and then one by one those that
# measure. Words are passed on to pytest.
set -uo pipefail
cd "$(dirname "$0")/.."

readonly NONE_SELECTED=5  # pytest's status for it

# Whoever selects by marks himself gets one run.
[[ " $* " == *" -m"* ]] && exec .venv/bin/python -m pytest "$@"

status=$NONE_SELECTED
run() {
    echo "pytest $*"
    .venv/bin/python -m pytest "$@"
    local ended=$?
    ((ended == NONE_SELECTED || status != 0 && status != NONE_SELECTED)) || status=$ended
}

run -n 2 --dist loadfile -m "not alone" "$@"
run -m alone "$@"
exit "$status"
