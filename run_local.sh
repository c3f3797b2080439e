#!/usr/bin/env bash
# Makes .venv beside this file (once), then runs maskbeam in it.
#
#     ./run_local.sh                    segments the embedded sample; the results are in out/run/
#     ./run_local.sh --input ... ...    passes its arguments to `python -m pipeline`; paths are relative to the current folder
#
# Environment: PYTHON              the Python to make .venv with, 3.11 to 3.13
#              MASKBEAM_EXTRAS     extras to install besides the core, as "train,aws"
#              MASKBEAM_SETUP_ONLY 1: make .venv and stop (tests/run.sh does so)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
stamp=$venv/maskbeam-installed
extras=${MASKBEAM_EXTRAS:-}

say() { printf 'maskbeam: %s\n' "$*" >&2; }

# Runs the candidate, because a version manager's shim on the PATH may start nothing.
version_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate without_venv=""
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        version_fits "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
        without_venv=$candidate
    done
    if [[ -n $without_venv ]]; then
        say "$without_venv lacks the modules venv and ensurepip; install them" \
            "(Debian and Ubuntu: the package python3-venv) or name another Python in PYTHON"
    else
        say "no Python 3.11, 3.12 or 3.13 was found; install one, or name it in PYTHON"
    fi
    return 2
}

# A digest of everything that the installation depends on; the folder too, because an editable install has its path.
fingerprint() {
    { printf '%s\n' "$root"; cat "$root/setup.py" "$root/pyproject.toml" "$root/constraints.txt"; } |
        "$venv/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# The stamp is a line "FINGERPRINT EXTRA,EXTRA" (or "-" for none), written last: without it, .venv is not used.
is_installed() {
    local print installed extra
    [[ -f $stamp ]] && version_fits "$venv/bin/python" || return 1
    read -r print installed <"$stamp" || return 1
    [[ $print == "$(fingerprint)" ]] || return 1
    for extra in ${extras//,/ }; do
        [[ ,$installed, == *,"$extra",* ]] || return 1
    done
}

set_up() {
    local python print installed="" extra
    is_installed && return
    if ! version_fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || exit $?
        "$python" -m venv --clear "$venv" || { say "$venv could not be created"; exit 1; }
    elif [[ -f $stamp ]]; then
        read -r print installed <"$stamp" || true
        [[ $installed != - ]] || installed=""
    fi
    rm -f "$stamp"
    for extra in ${extras//,/ }; do
        [[ ,$installed, == *,"$extra",* ]] || installed=${installed:+$installed,}$extra
    done

    if [[ -n $installed ]]; then
        say "installing the core and $installed into $venv (up to 1.5 GB to download, two to ten minutes, only once)"
    else
        say "installing the core into $venv (250 MB to download, one to three minutes, only once)"
    fi
    # setuptools first and no isolated builds, so that its version is the pinned one too.
    pip_install setuptools
    pip_install --no-build-isolation -e "$root${installed:+[$installed]}"
    print=$(fingerprint)
    printf '%s %s\n' "$print" "${installed:--}" >"$stamp.$$"
    mv "$stamp.$$" "$stamp"
}

pip_install() {
    PIP_USER=0 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$@" || {
        say "the installation failed (the reason is above); the next start continues it"
        exit 1
    }
}

# One set-up at a time. This file is locked, because .venv may be cleared; no separate lock file is needed.
if command -v flock >/dev/null 2>&1; then
    exec 9<"$root/run_local.sh"
    flock 9
    set_up
    exec 9>&-
else
    set_up
fi
if [[ ${MASKBEAM_SETUP_ONLY:-} == 1 ]]; then
    exit 0
fi

# This package only: neither a folder called "pipeline" in the current folder, nor one on the caller's path.
export PYTHONSAFEPATH=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

if (($#)); then
    exec "$venv/bin/python" -m pipeline "$@"
fi

cd "$root"
if [[ ! -e out/sample/complete ]]; then
    "$venv/bin/python" -m model sample --output out/sample --count 100 --seed 7
    # Written last, so that an interrupted sample is made again.
    : >out/sample/complete
fi
exec "$venv/bin/python" -m pipeline --input out/sample/images --ground_truth out/sample/masks --model shapes --output out/run
