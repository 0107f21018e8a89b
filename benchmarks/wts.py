"""How long it takes to read a .wts file of ResNet-50's size, and how much memory: `python benchmarks/wts.py`.

Three readers of the same file, each in a process of its own, by turns, with the file in the page cache:

    zoo     zoo.weights.load_weights and a read of every tensor
    c++     wts_reader.cpp beside this file: value by value through an ifstream, as tensorrtx's C++ samples do, -O2
    python  value by value with struct.unpack, as tensorrtx's Python samples do

Seconds and memory are medians. Memory is the peak of the resident set (VmHWM: what ru_maxrss reports, but without the
parent's) over what was resident just before the reader was called: without interpreter and imports, with every page of
the file that is mapped. Number and sum of the values are compared, so all three have read the same. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
READERS = ("zoo", "c++", "python")


def main() -> None:
    """Makes the file, runs the readers and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each reader (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--child", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], Path(args.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        report = compare(Path(folder), args.runs)
    print(json.dumps(report, indent=2) if args.json else table(report))


def compare(folder: Path, runs: int) -> dict[str, Any]:
    """The medians of every reader, and what they were measured on."""
    file = folder / "resnet50.wts"
    commands = {name: [sys.executable, __file__, "--child", name, str(file)] for name in ("write", *READERS)}
    commands["c++"] = [compile_reader(folder), str(file)]
    run(commands["write"])  # in a process of its own too: this one stays small
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in READERS}
    for _ in range(runs):
        for name in READERS:
            results[name].append(run(commands[name]))
    contents = {(r["values"], r["sum"]) for rows in results.values() for r in rows}
    if len(contents) != 1:
        sys.exit(f"the readers disagree on (values, sum): {contents}")
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in ("seconds", "memory")}
        for name, rows in results.items()
    }
    return {
        "values": contents.pop()[0],
        "file_bytes": file.stat().st_size,
        "runs": runs,
        "python": platform.python_version(),
        "processor": processor(),
        "readers": medians,
    }


def compile_reader(folder: Path) -> str:
    """The path of the compiled C++ loop."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        sys.exit("no C++ compiler found; install g++ or clang++")
    program = folder / "wts_reader"
    subprocess.run([compiler, "-std=c++17", "-O2", "-o", program, HERE / "wts_reader.cpp"], check=True)
    return str(program)


def run(command: list[str]) -> dict[str, Any]:
    """The JSON line that a command prints."""
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def processor() -> str:
    """The processor's name as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    data = 4 * report["values"]
    head = f"{report['values']:,} values, a file of {report['file_bytes']:,} bytes; medians of {report['runs']} runs"
    lines = [head, f"{report['processor']}, Python {report['python']}", ""]
    lines.append(f"{'reader':8}{'seconds':>9}{'zoo is':>15}{'memory over start':>20}{'of the values':>16}")
    zoo = report["readers"]["zoo"]["seconds"]
    for name, row in report["readers"].items():
        ratio = f"{row['seconds'] / zoo:.1f} x faster" if name != "zoo" else ""
        memory = f"{row['memory'] / 1e6:.1f} MB"
        lines.append(f"{name:8}{row['seconds']:9.3f}{ratio:>15}{memory:>20}{row['memory'] / data:14.2f} x")
    return "\n".join(lines)


def child(reader: str, file: Path) -> dict[str, Any]:
    """What one process does: write the file, or read it and tell time, memory, number and sum of the values."""
    sys.path.insert(0, str(HERE.parent))
    import numpy as np

    from zoo.weights import load_weights

    if reader == "write":
        write(file)
        return {}
    before = resident("VmRSS")
    start = time.perf_counter()
    if reader == "python":
        tensors = read_value_by_value(file)
    else:
        weights = load_weights(file)
        tensors = {name: weights.read(name, (weights.size(name),)) for name in weights.names()}
    seconds = time.perf_counter() - start
    memory = resident("VmHWM") - before
    bits = [array.view(np.uint32) for array in tensors.values()]
    total = sum(int(b.sum(dtype=np.uint64)) for b in bits)
    return {"seconds": seconds, "memory": memory, "values": sum(b.size for b in bits), "sum": total}


def resident(key: str) -> int:
    """A memory figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def read_value_by_value(file: Path) -> dict[str, Any]:
    """The straightforward reader that Python samples have."""
    import numpy as np

    with open(file) as text:
        lines = [line.strip() for line in text]
    tensors = {}
    for line in lines[1 : int(lines[0]) + 1]:
        name, _, *words = line.split(" ")
        values = []
        for word in words:
            values.append(struct.unpack(">f", bytes.fromhex(word)))
        tensors[name] = np.array(values, dtype=np.float32)
    return tensors


def write(file: Path) -> None:
    """A dump with the names and shapes of ResNet-50 and values that are no worse than real ones."""
    import numpy as np

    from zoo.weights import save_wts

    generator = np.random.default_rng(0)
    save_wts(file, {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in resnet50()})


def resnet50() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of ResNet-50's 25.6 M values."""
    yield from conv_bn("conv1", "bn1", (64, 3, 7, 7))
    channels = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(depth):
            path = f"layer{stage + 1}.{block}"
            yield from conv_bn(f"{path}.conv1", f"{path}.bn1", (width, channels, 1, 1))
            yield from conv_bn(f"{path}.conv2", f"{path}.bn2", (width, width, 3, 3))
            yield from conv_bn(f"{path}.conv3", f"{path}.bn3", (4 * width, width, 1, 1))
            if block == 0:
                yield from conv_bn(f"{path}.downsample.0", f"{path}.downsample.1", (4 * width, channels, 1, 1))
            channels = 4 * width
    yield "fc.weight", (1000, channels)
    yield "fc.bias", (1000,)


def conv_bn(conv: str, bn: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A convolution without bias and the BatchNorm after it."""
    yield f"{conv}.weight", shape
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{bn}.{name}", shape[:1]
    yield f"{bn}.num_batches_tracked", ()


if __name__ == "__main__":
    main()
