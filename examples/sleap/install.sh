#!/usr/bin/env bash
# Makes an environment of its own with sleap-nn 0.3.5 on the CPU: about 2 minutes, 1.7 GB.
# A GPU machine installs sleap-nn as its own documentation says; this is for tests and laptops.
#
#   examples/sleap/install.sh VENV [PYTHON]     PYTHON: 3.11 to 3.13; python3 if it is not given
#
# Run again, it changes nothing; remove VENV to begin anew. On Linux PyPI's torch is the one for
# CUDA, some GB larger: TORCH_INDEX=https://download.pytorch.org/whl/cpu has the one for the CPU.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1#-}" != "$1" ] || [ -z "$1" ]; then
    echo "usage: install.sh VENV [PYTHON]" >&2
    exit 2
fi
venv=$1
python=${2:-python3}
sum=$(cat "$here/constraints.txt" "$here/requirements.txt" "$here/install.sh" | cksum)
stamp="$venv/.sleap-nn-${sum%% *}"
if [ -e "$stamp" ]; then
    echo "sleap-nn is ready: $venv/bin/sleap-nn"
    exit 0
fi
if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    echo "$venv exists and is no environment: give a folder that is to be made" >&2
    exit 1
fi
if ! "$python" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
    echo "$python is no Python 3.11 to 3.13 with its venv module: name one after $venv" >&2
    exit 1
fi

step() { # WHAT COMMAND...: tells what begins, and how long it took
    local started=$SECONDS
    printf '%-52s ' "$1"
    shift
    "$@" || { echo "failed: remove $venv, and run this again" >&2; exit 1; }
    echo "$((SECONDS - started)) s"
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
        -c "$here/constraints.txt" "$@"
}

torch() {
    pip ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$@"
}

sleap_nn() {
    pip -r "$here/requirements.txt" && pip --no-deps sleap-nn==0.3.5 sleap-io==0.9.5
}

# Beside a torch for the CPU, the operators of a torchvision for CUDA are absent, and registering a
# fake of them fails. `register_meta`, torchvision's own guarded form, does nothing then.
patch_torchvision() {
    local file
    file=$(echo "$venv"/lib/python3*/site-packages/torchvision/_meta_registrations.py)
    sed 's/^@torch\.library\.register_fake("torchvision::\(q\{0,1\}nms\)")/@register_meta("\1")/' \
        "$file" >"$file.new"
    mv "$file.new" "$file"
}

# Some of it is imported only when a training begins.
look() {
    "$venv/bin/python" -W ignore -c \
        'import shapely, torch, torchvision, sleap_nn.train, sleap_nn.legacy_predict'
}

echo "sleap-nn on the CPU, into $venv: about 2 minutes and 1.7 GB"
rm -rf "$venv"
step "1/5 environment (some seconds)" "$python" -m venv "$venv"
step "2/5 torch (about 1 minute)" torch torch
step "3/5 torchvision (some seconds)" torch --no-deps torchvision
"$venv/bin/python" -W ignore -c 'import torchvision' 2>/dev/null || patch_torchvision
step "4/5 sleap-nn and what it imports (about 1 minute)" sleap_nn
step "5/5 a look whether it imports (some seconds)" look
touch "$stamp"
echo "sleap-nn is ready: $venv/bin/sleap-nn ($SECONDS s)"
