#!/usr/bin/env bash
# vis_all.sh [FOLDER] [key=value ...]: scripts/visualize.py for every run with a checkpoint below FOLDER (outputs).
# A run without pictures (a classifier, spectra) is named and passed over; exit status 1 if no run could be drawn.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=outputs
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then folder=$1; shift; fi
drawn=0 passed=0
while IFS= read -r -d '' checkpoints; do
    compgen -G "$checkpoints/*.safetensors" > /dev/null || continue
    run=$(dirname "$checkpoints")
    echo "== $run"
    if "${PYTHON:-python}" "$here/scripts/visualize.py" checkpoint="$run" "$@"; then
        drawn=$((drawn + 1))
    else
        passed=$((passed + 1))
    fi
done < <(find "$folder" -type d -name checkpoints -print0 | sort -z)
echo "$drawn runs drawn, $passed passed over"
[ "$drawn" -gt 0 ]
