#!/usr/bin/env bash
# Makes .venv, or brings it up to date: venv.sh runtime|dev STAMP...
# The stamps are touched once everything is installed; make looks at nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

what=$1
shift
python=.venv/bin/python

if ! "$python" -c '' >/dev/null 2>&1; then
    base=$(tools/python.sh)
    echo "making .venv with $base"
    rm -rf .venv
    "$base" -m venv .venv
fi

SECONDS=0
pip=("$python" -m pip --disable-pip-version-check --quiet)
if [ "$what" = dev ]; then
    echo "installing fsm-worker and its development tools into .venv"
    # --group came with pip 25.1 (PEP 735)
    "${pip[@]}" install 'pip>=25.1'
    "${pip[@]}" install --editable . --group dev
else
    echo "installing fsm-worker into .venv"
    "${pip[@]}" install --editable .
fi
rm -f .venv/.runtime-* .venv/.dev-*
touch "$@"
echo "installed in $SECONDS s"
