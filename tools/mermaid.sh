#!/usr/bin/env bash
# Gets Mermaid from npm, as one file for a browser: mermaid.sh FOLDER
# Two versions: what most hosts of Markdown draw with today, and the newest.
set -euo pipefail

folder=$1
mkdir -p "$folder"
for version in 11.17.2 12.3.0; do
    file=$folder/mermaid-$version.min.js
    [ -s "$file" ] && continue
    command -v npm >/dev/null || { echo "needs npm: apt-get install npm" >&2; exit 1; }
    npm pack --silent --pack-destination "$folder" "mermaid@$version" >/dev/null
    tar -xzOf "$folder/mermaid-$version.tgz" package/dist/mermaid.min.js >"$file.part"
    rm "$folder/mermaid-$version.tgz"
    mv "$file.part" "$file"
done
