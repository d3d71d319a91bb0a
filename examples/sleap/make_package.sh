#!/usr/bin/env bash
# Makes a package like those that SLEAP exports: make_package.sh FOLDER [VENV]
#
#   FOLDER   to make: train-script.sh, config.yaml and labels.pkg.slp, 20 small images
#   VENV     of install.sh; .venv-sleap if it is not given
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: make_package.sh FOLDER [VENV]" >&2
    exit 2
fi
folder=$1
python=${2:-.venv-sleap}/bin/python
if [ -e "$folder" ]; then
    echo "$folder exists: give a folder that is to be made" >&2
    exit 1
fi
if [ ! -x "$python" ]; then
    echo "there is no $python: run $here/install.sh ${2:-.venv-sleap} first" >&2
    exit 1
fi
mkdir -p "$folder"
cp "$here/train-script.sh" "$here/config.yaml" "$folder/"
"$python" "$here/make_data.py" "$folder/labels.pkg.slp"
