#!/usr/bin/env bash
# Prints the path of a Python that is new enough (3.11) and can make virtual environments.
# PYTHON=/path/to/python asks for that one. Says how to get one, and fails, where there is none.
set -euo pipefail

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for name in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if command -v "$name" >/dev/null 2>&1 && fits "$name"; then
        "$name" -c 'import sys; print(sys.executable)'
        exit 0
    fi
    if [ "$name" = "${PYTHON:-}" ]; then
        echo "PYTHON=$name is no Python 3.11 or newer with its venv module." >&2
        exit 1
    fi
done

cat >&2 <<'TXT'
No Python 3.11 or newer with its venv module was found. To get one:
  Debian, Ubuntu   sudo apt-get install python3 python3-venv   (Debian 12, Ubuntu 24.04 or newer)
  Fedora           sudo dnf install python3
  macOS            brew install python
  any system       https://docs.astral.sh/uv/: uv python install 3.13
Then run make again, with PYTHON=/path/to/python3 if it is not on the PATH.
TXT
exit 1
