#!/usr/bin/env bash
# Mutation tests of pipeline/core: in a copy of the code, one thing is changed at a time, and a test must fail.
#
#     bash tests/mutation.sh                            all of it: hours of 2 cores
#     bash tests/mutation.sh 'pipeline.core.scores*'    the functions of one module, without the numbers outside functions
#
# Needs the .venv of tests/run.sh, into which it installs mutmut. pipeline/docs/testing.md explains surviving mutants.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$root/.venv/bin/python
"$python" -m pip install --quiet 'mutmut==3.8.1' --constraint "$root/constraints.txt"

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar -C "$root" --exclude=__pycache__ -cf - model pipeline tests pyproject.toml setup.py README.md | tar -C "$copy" -xf -
cd "$copy"
PATH=$root/.venv/bin:$PATH
mutmut run --max-children 2 "$@"
mutmut results
mutmut export-cicd-stats
cat mutants/mutmut-cicd-stats.json
printf '\n'
if (($# == 0)); then
    "$python" "$root/tests/mutate_numbers.py"
fi
