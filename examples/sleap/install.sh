#!/usr/bin/env bash
# Makes an environment of its own with sleap-nn 0.3.5 on the CPU: about 2 minutes, 1.7 GB.
# A GPU machine installs sleap-nn as its own documentation says; this is for tests and laptops.
#
#   examples/sleap/install.sh VENV [PYTHON]
#
# Run again, it changes nothing; remove VENV to begin anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:?usage: install.sh VENV [PYTHON]}
python=${2:-python3}
stamp="$venv/.sleap-nn-$(cat "$here/constraints.txt" "$here/requirements.txt" "$0" | cksum | cut -d' ' -f1)"
if [ -e "$stamp" ]; then
    echo "sleap-nn is ready: $venv/bin/sleap-nn"
    exit 0
fi
say() { printf '== %s (%d s so far)\n' "$1" "$SECONDS"; }

rm -rf "$venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$@"; }
say "torch, about 1 minute"
pip torch
pip --no-deps torchvision
say "what sleap-nn imports, about 1 minute"
pip -r "$here/requirements.txt"
pip --no-deps sleap-nn==0.3.5 sleap-io==0.9.5

# torchvision's wheel is made for CUDA: beside a torch for the CPU its operators are absent, and
# registering a fake of them fails. `register_meta`, its own guarded form, does nothing then.
meta=$(echo "$venv"/lib/python3*/site-packages/torchvision/_meta_registrations.py)
sed -i 's/^@torch\.library\.register_fake("torchvision::\(q\?nms\)")/@register_meta("\1")/' "$meta"

say "a look whether it imports"
"$venv/bin/python" -c "import sleap_nn.train, shapely, torch; print('torch', torch.__version__)"
touch "$stamp"
echo "sleap-nn is ready: $venv/bin/sleap-nn ($SECONDS s)"
