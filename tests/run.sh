#!/usr/bin/env bash
# Makes .venv with the test extras, then runs lint, types and tests; every check runs even if an earlier one failed.
#
#     bash tests/run.sh                   the checks for every change
#     bash tests/run.sh --full            also the soak, fuzz, kill, cluster and browser tests
#     bash tests/run.sh [--full] -k NAME  further arguments go to pytest
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"

pytest_options=(-n 2)
if [[ ${1:-} == --full ]]; then
    shift
    # An empty expression overrides the "not full" of pyproject.toml.
    pytest_options+=(-m "")
fi

start=$SECONDS
MASKBEAM_EXTRAS=test MASKBEAM_SETUP_ONLY=1 bash "$root/run_local.sh"
printf 'set-up: %d s\n' $((SECONDS - start))

python=$root/.venv/bin/python
failed=()
check() {
    local name=$1 start=$SECONDS
    shift
    "$@" || failed+=("$name")
    printf '%s: %d s\n' "$name" $((SECONDS - start))
}

check lint "$python" -m ruff check .
check format "$python" -m ruff format --check .
check types "$python" -m mypy
check tests "$python" -m pytest "${pytest_options[@]}" "$@"

if ((${#failed[@]})); then
    printf 'FAILED: %s\n' "${failed[*]}" >&2
    exit 1
fi
printf 'all checks passed\n'
