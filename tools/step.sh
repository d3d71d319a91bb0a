#!/usr/bin/env bash
# Runs one check: step.sh NAME COMMAND...; prints its name and how long it took, and what it said
# only if it failed.
set -uo pipefail

name=$1
shift
said=$(mktemp)
trap 'rm -f "$said"' EXIT
TIMEFORMAT=%1R
took=$({ time "$@" >"$said" 2>&1; } 2>&1)
code=$?
if [ "$code" -ne 0 ]; then
    cat "$said"
    printf '%-32s failed: %s\n' "$name" "$*"
    exit "$code"
fi
printf '%-32s ok %6s s\n' "$name" "$took"
