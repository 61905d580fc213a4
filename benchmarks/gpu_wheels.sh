#!/usr/bin/env bash
# gpu_wheels.sh DIR: the wheels that `gpu.sh` needs besides torch, NumPy, pandas and
# scikit-learn, for a GPU machine with Python 3.12 that has no network and no Ray. There:
#
#   python3 -m pip install --no-index --no-deps --target SITE DIR/*.whl
#   PYTHONPATH=SITE benchmarks/gpu.sh
#
# `gpu.sh` needs pydantic and what comes with it (DIR/pydantic*, annotated*, typing*); its two
# searches need all of them. Versions are those of constraints.txt.
set -euo pipefail
folder=${1:?"usage: gpu_wheels.sh DIR"}
here=$(cd "$(dirname "$0")" && pwd)
platforms=(manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64)
packages=(pydantic pydantic_core annotated-types typing-inspection
    ray optuna alembic SQLAlchemy Mako colorlog tensorboardX
    jsonschema jsonschema-specifications referencing rpds-py
    argcomplete plotly itables)

mkdir -p "$folder"
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]/#/--platform=}" \
    --constraint "$here/../constraints.txt" --dest "$folder" "${packages[@]}"
python3 "$here/gpu_wheels.py" "$folder"/*.whl
du -ch "$folder"/*.whl | tail -1
