"""Mutated files for the readers: `python tests/fuzz.py --format checkpoint --count 20000`.

Every input must be read, or refused by a ZooError, within 5 seconds and without running anything. Seeds are fixed: the
same count gives the same inputs.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import pickletools
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo.errors import ZooError
from zoo.weights import load_weights

SECONDS = 5.0
MEMORY = 2 << 30  # of the whole run
_OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]
_EVIL = [
    b"cos\nsystem\n(X\x08\0\0\0touch %sQtR",
    b"cposix\nsystem\nX\x01\0\0\0x\x85R",
    b"cbuiltins\neval\nX\x09\0\0\0open('x')\x85R",
    b"cbuiltins\nexec\nX\x01\0\0\0x\x85R",
    b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R",
    b"cbuiltins\nlist\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R",
    b"ccollections\nOrderedDict\n]K\1a\x85R",
    b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0(J\xff\xff\xff\x7ft)tR",
    b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR(NNNNNtb",
    b"cnumpy\ndtype\nX\x02\0\0\0f8\x85Rb",
    b"ctorch.storage\n_load_from_bytes\nB\4\0\0\0\x80\2K\1\x85R",
    b"r\xff\xff\xff\xff", b"\x8a\xff", b"B\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"(((((((",
]  # fmt: skip


def seeds() -> list[bytes]:
    """Small checkpoints of both containers, made without PyTorch's classes where it is missing."""
    import numpy as np
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.SiLU())
    content = {
        "model": module,
        "names": {0: "a"},
        "epoch": np.float64(1),
        "arr": np.arange(3),
        "opt": argparse.Namespace(a=1),
    }
    found = []
    for thing in (content, module.state_dict()):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(thing, file, _use_new_zipfile_serialization=zipped)
            found.append(file.getvalue())
        found.append(pickle.dumps(thing, 4))
    return found


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, removed, doubled, replaced bytes, opcodes and hostile calls."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.choice((1, 4, 40))]
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 100))]
        elif kind == 3:
            changed[at:at] = rng.choice(_EVIL)
        elif kind == 4 and at < len(changed):
            changed[at] = rng.choice(_OPCODES)
        else:
            changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"))
    return bytes(changed)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The file mutated anywhere, or the pickle in its archive, with a right archive around it."""
    if data[:4] != b"PK\3\4" or rng.random() < 0.3:
        return mutate_bytes(data, rng)
    out = io.BytesIO()
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", compression) as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry.filename, mutate_bytes(content, rng) if "data.pkl" in entry.filename else content)
    return out.getvalue()


def watch(events: list[str]) -> None:
    """Records what must never happen while a file is read: a process, an evaluation, an import of what it names."""
    forbidden = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "exec", "pickle.find_class"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        library = event == "exec" and os.path.isfile(arguments[0].co_filename)  # the codec of some text, imported late
        if event in forbidden and not library:
            events.append(f"{event} {arguments}"[:200])

    sys.addaudithook(hook)


def check_checkpoints(count: int, seed: int = 0) -> dict[str, int]:
    """Tries `count` inputs; raises AssertionError for the first that does what none may do."""
    files, rng, tally, events = seeds(), random.Random(seed), {"read": 0, "refused": 0}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "best.pt")
        path.write_bytes(files[0])
        assert read(path)  # and whatever is imported is imported now
        watch(events)
        before = set(os.listdir("."))
        for number in range(count):
            path.write_bytes(mutate(rng.choice(files), rng))
            started = time.perf_counter()
            events.clear()
            tally["read" if read(path) else "refused"] += 1
            seconds = time.perf_counter() - started
            assert seconds < SECONDS, f"input {number} takes {seconds:.1f} s"
            assert not events, f"input {number} makes {events}"
        assert set(os.listdir(".")) == before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert peak < MEMORY, f"the peak of memory is {peak >> 20} MiB"
    return tally


def read(path: Path) -> bool:
    """Whether the file was read, every tensor of it; False when it was refused."""
    try:
        weights = load_weights(path)
        for name in weights.names():
            shape = weights.shape(name)
            weights.read(name, (weights.size(name),) if shape is None else shape)
    except ZooError:
        return False
    return True


FORMATS: dict[str, Callable[[int], dict[str, int]]] = {"checkpoint": check_checkpoints}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=FORMATS, default="checkpoint")
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    started = time.perf_counter()
    tally = FORMATS[options.format](options.count)
    print(f"{options.format}: {options.count:,} inputs, {tally} in {time.perf_counter() - started:.0f} s, nothing ran")
