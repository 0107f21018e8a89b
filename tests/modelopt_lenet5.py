"""Makes tests/data/lenet5_modelopt.pt: LeNet-5 trained for int8 by NVIDIA's ModelOpt, as a user's checkpoint would be.

    python tests/modelopt_lenet5.py

Needs nvidia-modelopt (0.47.0 made the file), which has packages of its own below it: `pip install nvidia-modelopt`
into an environment with the zoo and its references. Quantisers are put in and calibrated, then the weights are trained
on with them (quantisation-aware training, QAT), so that they leave the ranges that were chosen for them. Beside the
checkpoint stands what ModelOpt's network answers, on images that numpy draws.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from train_lenet5 import LeNet5, pictures  # noqa: E402

from zoo.preprocess import gray  # noqa: E402
from zoo.weights import load_weights  # noqa: E402

OUT = ROOT / "tests" / "data" / "lenet5_modelopt"


def trained() -> LeNet5:
    """With the weights that the zoo brings."""
    weights, module = load_weights(ROOT / "zoo" / "weights" / "lenet5.safetensors"), LeNet5()
    module.load_state_dict({n: torch.from_numpy(weights.read(n, weights.shape(n) or ())) for n in weights.names()})
    return module


def main() -> None:
    import modelopt.torch.quantization as mtq

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, digits = pictures()
    x = torch.from_numpy(np.stack([gray(32).apply(image)[0] for image in images[:512]]))
    y = torch.from_numpy(digits[:512]).long()
    config = deepcopy(mtq.INT8_DEFAULT_CFG)
    module = mtq.quantize(trained(), config, lambda module: module(x[:128]))
    for name in ("fc1", "fc2", "fc3", "pool"):  # the zoo keeps higher what reads one vector of each picture
        mtq.disable_quantizer(module, f"*{name}*")
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for step in range(16):
        loss = F.cross_entropy(module(x[step * 32 : step * 32 + 32]), y[step * 32 : step * 32 + 32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
    seen = torch.from_numpy(np.random.default_rng(0).random((4, 1, 32, 32), np.float32))
    with torch.no_grad():
        logits = module(seen).double().tolist()
    torch.save(module.state_dict(), OUT.with_suffix(".pt"))
    about = {name: importlib.metadata.version(name) for name in ("nvidia-modelopt", "torch")}
    OUT.with_suffix(".json").write_text(json.dumps(about | {"logits": logits}) + "\n")


if __name__ == "__main__":
    main()
