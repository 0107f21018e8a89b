"""torchvision's operators beside a CPU build of PyTorch: real where a C compiler is, against plain NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.driver import has_driver
from zoo.verify import torchvision_shim
from zoo.verify.torchvision_shim import import_torchvision

ROOT = Path(__file__).parent.parent


def at(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear: the value of a map (C, H, W) at a point, with zeros around it."""
    top, left = int(np.floor(y)), int(np.floor(x))
    value = np.zeros(len(image))
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return value


def test_deform_conv2d_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    image, weight = rng.standard_normal((3, 5, 6)), rng.standard_normal((4, 3, 3, 3))
    offset, mask = rng.standard_normal((18, 5, 6)), rng.random((9, 5, 6))
    expected = np.zeros((4, 5, 6))
    for y in range(5):
        for x in range(6):
            for tap in range(9):
                i, j = divmod(tap, 3)
                point = at(image, y + i - 1 + offset[2 * tap, y, x], x + j - 1 + offset[2 * tap + 1, y, x])
                expected[:, y, x] += weight[:, :, i, j] @ (mask[tap, y, x] * point)
    tensors = [torch.from_numpy(array[None]) for array in (image, offset, mask)]
    ops = import_torchvision().ops
    found = ops.deform_conv2d(tensors[0], tensors[1], torch.from_numpy(weight), padding=1, mask=tensors[2])
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_roi_align_is_its_definition() -> None:
    image = np.random.default_rng(1).standard_normal((2, 9, 11))
    box, scale, bins, samples = np.array([2.0, 1.0, 14.0, 12.0]), 0.5, 3, 2
    left, top, right, bottom = box * scale - 0.5
    expected = np.zeros((2, bins, bins))
    for i in range(bins):
        for j in range(bins):
            for a in range(samples):
                for b in range(samples):
                    y = top + (i + (a + 0.5) / samples) * (bottom - top) / bins
                    x = left + (j + (b + 0.5) / samples) * (right - left) / bins
                    expected[:, i, j] += at(image, y, x) / samples**2
    boxes = torch.from_numpy(box[None])
    ops = import_torchvision().ops
    found = ops.roi_align(torch.from_numpy(image[None]), [boxes], bins, scale, samples, aligned=True)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(torch.version.cuda is not None or has_driver(), reason="torchvision's own operators load here")
def test_the_operators_are_the_compiled_ones() -> None:
    import_torchvision()
    assert torch.ops.torchvision._cuda_version() > 0  # of the build, which no Python stands in for


@pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision's own operators load here")
def test_stubs_are_compiled_once_whoever_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    binary = next(Path(import_torchvision().__file__).parent.glob("_C*.so"))
    with ThreadPoolExecutor(4) as pool:
        (folder,) = set(pool.map(torchvision_shim._stubs, [binary] * 4))
    assert os.listdir(tmp_path / "zoo") == [folder.name]
    assert {"libc10_cuda.so", "libtorch_cuda.so"} < set(os.listdir(folder))
    monkeypatch.setattr(torchvision_shim, "_tool", lambda *arguments: pytest.fail("compiled again"))
    assert torchvision_shim._stubs(binary) == folder


@pytest.mark.parametrize("lacking", ["a compiler", "a place to write"])
def test_torchvision_imports_without_its_operators(tmp_path: Path, lacking: str) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    code = (
        "import os, torch; os.defpath = {path!r}\n"
        "from zoo.verify.torchvision_shim import import_torchvision\n"
        "models = import_torchvision().models\n"
        "print(models.resnet18().eval()(torch.zeros(1, 3, 32, 32)).shape)\n"
        "print(torch.ops.torchvision.nms(torch.tensor([[0., 0, 1, 1]] * 2), torch.tensor([.1, .2]), 0.5))\n"
    ).format(path="/nowhere" if lacking == "a compiler" else os.defpath)
    cache = tmp_path / "new" if lacking == "a compiler" else blocked
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert answer.stdout == "torch.Size([1, 1000])\ntensor([1])\n", answer.stderr


def test_the_compiler_is_left_out_until_it_is_asked() -> None:
    code = (
        "import sys; from zoo.verify.references import libraries\n"
        "libraries()['timm'].names(); from torchvision.ops import roi_align\n"
        "print(any(name.startswith('torch._dynamo') for name in sys.modules))\n"
        "print(*map(sys.modules['torchvision.ops.roi_align'].is_compile_supported, ('cpu', 'meta')))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout == "False\nTrue False\n", answer.stderr
