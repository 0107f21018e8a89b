"""LeNet-5, defined and trained here: handwritten digits on one CPU core in about a minute.

    python scripts/train_lenet5.py        # writes zoo/weights/lenet5.safetensors and samples/digit_*.png

The network is LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", in the form that its
readers use: tanh and average pooling as in the paper, but every map of conv2 sees every map of conv1, pooling has no
weights of its own, and ten logits with a softmax loss stand for the RBF output. White strokes on black, 1 x 32 x 32.

The data are scikit-learn's handwritten digits, 1797 pictures of 8 x 8 pixels that come with the library: nothing is
downloaded. A fifth is held out: it gives the accuracy and the sample pictures, and is never trained on. The seed and
the single thread make a run repeatable on one machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from zoo.files import replacing
from zoo.preprocess import gray
from zoo.weights import save_safetensors

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = (0, 3, 7)  # the digits that sample pictures show
SAMPLE_SIZE = 128


class LeNet5(nn.Module):
    """(N, 1, 32, 32) grey in 0..1 -> (N, classes) logits."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)  # 6 x 28 x 28
        self.conv2 = nn.Conv2d(6, 16, 5)  # 16 x 10 x 10
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.pool = nn.AvgPool2d(2)
        self.tanh = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.tanh(self.conv1(x)))
        x = self.pool(self.tanh(self.conv2(x)))
        x = self.tanh(self.fc1(x.flatten(1)))
        return self.fc3(self.tanh(self.fc2(x)))


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """The data set as pictures (1797, 8, 8, 3) uint8, white strokes on black, and the digits that they show."""
    from sklearn.datasets import load_digits  # here, since proofs import this file for the network alone

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), digits.target


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture as a person would look at it, (SAMPLE_SIZE, SAMPLE_SIZE, 3) uint8."""
    return cv2.resize(picture, (SAMPLE_SIZE, SAMPLE_SIZE), interpolation=cv2.INTER_CUBIC)


def network_input(images: np.ndarray) -> torch.Tensor:
    """(N, 1, 32, 32) float32, prepared exactly as prediction does it."""
    return torch.from_numpy(np.stack([gray(32).apply(image)[0] for image in images]))


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Each image turned, scaled, sheared and moved a little, with other contrast and a little noise."""
    count = len(x)
    angle, shear = (torch.rand(2, count) - 0.5) * 0.5  # radians, about 14 degrees each way
    scale = 0.85 + 0.45 * torch.rand(2, count)
    rotation = torch.stack([angle.cos(), shear - angle.sin(), angle.sin(), angle.cos()]).view(2, 2, count)
    linear = (rotation * scale[:, None]).permute(2, 0, 1)
    shift = (torch.rand(count, 2, 1) - 0.5) * 0.3
    grid = F.affine_grid(torch.cat([linear, shift], dim=2), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    low, contrast = 0.2 * torch.rand(count, 1, 1, 1), 1 + torch.rand(count, 1, 1, 1)
    x = ((x - low) * contrast).clamp(0, 1)
    return (x + 0.05 * torch.randn_like(x)).clamp(0, 1)


def train(x: torch.Tensor, y: torch.Tensor, epochs: int, batch: int = 64) -> LeNet5:
    model = LeNet5()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            loss = F.cross_entropy(model(augmented(x[chosen])), y[chosen], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:3} of {epochs}  loss {loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def probabilities(model: LeNet5, images: np.ndarray) -> np.ndarray:
    return model(network_input(images)).softmax(dim=1).numpy()


def write_weights(path: Path, model: LeNet5, accuracy: float, held_out: int) -> None:
    metadata = {
        "model": "lenet5",
        "source": "scripts/train_lenet5.py:LeNet5",
        "classes": json.dumps([str(digit) for digit in range(10)]),
        "input": json.dumps({"shape": [1, 32, 32], **gray(32).to_dict()}),
        "accuracy": f"{accuracy:.4f} on {held_out} held-out digits",
        "data": "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)",
    }
    save_safetensors(path, {name: value.numpy() for name, value in model.state_dict().items()}, metadata)


def write_samples(folder: Path, model: LeNet5, images: np.ndarray, digits: np.ndarray) -> None:
    """One held-out picture per digit of SAMPLES: the one that the network is surest of among those it gets right."""
    large = np.stack([enlarged(image) for image in images])
    chances = probabilities(model, large)
    for digit in SAMPLES:
        best = int(np.argmax(np.where(digits == digit, chances[:, digit], -1)))
        path = folder / f"digit_{digit}.png"
        with replacing(path) as file:
            file.write(cv2.imencode(".png", large[best])[1].tobytes())
        print(f"{path.relative_to(folder.parent)}: {digit} with {chances[best, digit]:.1%}")


def main() -> None:
    from sklearn.model_selection import train_test_split

    parser = argparse.ArgumentParser(description="Train LeNet-5 on handwritten digits and write its weights.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--output", type=Path, default=ROOT, help="folder that gets zoo/weights/ and samples/")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, digits = pictures()
    train_images, test_images, train_digits, test_digits = train_test_split(
        images, digits, test_size=0.2, random_state=0, stratify=digits
    )
    model = train(network_input(train_images), torch.from_numpy(train_digits), options.epochs)

    accuracy = float((probabilities(model, test_images).argmax(1) == test_digits).mean())
    print(f"held out: {accuracy:.2%} of {len(test_digits)} digits are recognised")

    write_weights(options.output / "zoo" / "weights" / "lenet5.safetensors", model, accuracy, len(test_digits))
    write_samples(options.output / "samples", model, test_images, test_digits)


if __name__ == "__main__":
    main()
