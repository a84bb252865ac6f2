#!/usr/bin/env bash
# vis_all.sh [FOLDER ...] [key=value ...]: visualizers/render.py for every run with a checkpoint in or below the folders
# (outputs). A run that can't be drawn is named and passed over; exit status 1 if no run could be drawn.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folders=()
while [ $# -gt 0 ] && [[ $1 != *=* ]]; do folders+=("$1"); shift; done
[ ${#folders[@]} -gt 0 ] || folders=(outputs)
drawn=0 passed=0
while IFS= read -r -d '' checkpoints; do
    compgen -G "$checkpoints/*.safetensors" > /dev/null || continue
    run=$(dirname "$checkpoints")
    echo "== $run"
    if "${PYTHON:-python}" "$here/visualizers/render.py" run="$run" "$@"; then
        drawn=$((drawn + 1))
    else
        passed=$((passed + 1))
    fi
done < <(find "${folders[@]}" -type d -name checkpoints -print0 | sort -zu)
echo "$drawn runs drawn, $passed passed over"
[ "$drawn" -gt 0 ]
