#!/usr/bin/env bash
# A first look: installs the base package (no PyTorch, no GPU needed) into .venv-demo, reads a handwritten digit, and
# compiles ResNet-50 into an engine. Arguments: none. PYTHON names another interpreter (3.10 to 3.13).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=runs/demo

echo "1/3  installing zoo into .venv-demo (about a minute)"
[ -x .venv-demo/bin/python ] || "$python" -m venv .venv-demo
.venv-demo/bin/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt

echo "2/3  reading a handwritten digit with LeNet-5 (the trained weights that ship)"
.venv-demo/bin/python -m zoo.run lenet5 samples/digit_7.png --top 3 --save "$out"

echo "3/3  compiling ResNet-50 in fp16 (random weights, each tensor seeded by its name)"
.venv-demo/bin/python -m zoo.build resnet50 --fp16 --weights random --save-engine "$out/resnet50-fp16.engine"

cat <<EOF

Done. What was made:
  $out/digit_7.png                the annotated picture
  $out/results.json               the answer as JSON
  $out/resnet50-fp16.engine       a TensorRT-RTX engine, compiled ahead of time without a GPU
  $out/resnet50-fp16.engine.json  its description: shapes, precision, weights, how to rebuild it
EOF
