#!/usr/bin/env bash
# Everything that a GPU has to show, in one command of under 8 minutes: see gpu.py --help.
set -euo pipefail
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$here/gpu.py" "$@"
