"""Mutated plugins for the shell, under the sanitizers of addresses and undefined behaviour: `python fuzz_plugins.py`.

The texts and the serialised data of the project's own ops are mutated. Each must be refused, or be a plugin that
answers all that TensorRT asks of it, without a fault. Seeds are fixed: the same count gives the same inputs. A fault
ends the run, with the sanitizer's report.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from plugin_cases import CASES

from zoo.plugins.core import shell
from zoo.plugins.core.kernels import declaration, spec

DRIVER = """
extern "C" {
int cuCtxGetCurrent(void **context) { *context = context; return 0; }
int cuModuleLoadData(void **module, void const *) { *module = module; return 0; }
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **function, void *, char const *) { *function = function; return 0; }
int cuLaunchKernel(...) { return 0; }
int cuGetErrorName(int, char const **name) { *name = "none"; return 0; }
}
"""
WORDS = b"op io types out scratch run arg i0 o0 i63 w n f 0.0 o1.7 9.9 -1 0 1 64 2147483648 9223372036854775807 "
WORDS = WORDS.split() + [
    b"0.2,0.3,*",
    b"1,0,/",
    b"-9223372036854775808,-1,/",
    b"1,1,+,+",
    b"0," * 40 + b"0",
    b"ffh",
    b",",
    b"\n",
    b"\0",
]


def mutated(seeds: list[bytes], count: int) -> Iterator[bytes]:
    for number in range(count):
        r = random.Random(number)
        data = bytearray(r.choice(seeds))
        for _ in range(r.choice((1, 1, 2, 4, 16))):
            at, kind = r.randrange(len(data) + 1), r.randrange(6)
            if kind == 0:
                data[at : at + 1] = bytes([r.randrange(256)])
            elif kind == 1:
                del data[at : at + r.choice((1, 2, 8, 40))]
            elif kind == 2:
                data[at:at] = b" " + r.choice(WORDS) + b" "
            elif kind == 3:  # a line again, or without its place
                lines = bytes(data).split(b"\n")
                lines.insert(r.randrange(len(lines) + 1), r.choice(lines))
                data = bytearray(b"\n".join(lines))
            elif kind == 4:
                words = bytes(data).split(b" ")
                words[r.randrange(len(words))] = r.choice(WORDS)
                data = bytearray(b" ".join(words))
            else:
                other = r.choice(seeds)
                data[at:] = other[r.randrange(len(other) + 1) :]
        yield bytes(data[:20_000])


def build(folder: Path) -> tuple[Path, Path]:
    """The program of plugin_fuzz.cpp, and a driver of CUDA whose kernels do nothing."""
    program, driver, code = folder / "fuzz", folder / "driver.so", folder / "driver.cpp"
    code.write_text(DRIVER)
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-rdynamic", "-g", "-O1", "-std=c++17")
    command = ["g++", *checks, f"-I{shell.SOURCES}", "-o", program, HERE / "plugin_fuzz.cpp", "-ldl"]
    subprocess.run(command, check=True)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", driver, code], check=True)
    return program, driver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    texts = [spec(case.op, declaration(case.op)).encode() for case in CASES]
    wholes = [b"zooop-1\n" + struct.pack("<Q", len(text)) + text + b"kernels" for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        program, driver = build(Path(folder))
        inputs, refusals = Path(folder) / "inputs", Path(folder) / "refusals"
        started = time.perf_counter()
        with open(inputs, "wb") as file:
            for seeds, whole, share in ((texts, 0, count - count // 4), (wholes, 1, count // 4)):
                for data in [*seeds, *mutated(seeds, share)]:
                    file.write(struct.pack("<II", len(data), whole) + data)
        with open(inputs, "rb") as file, open(refusals, "wb") as errors:
            run = subprocess.run(
                [program],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"ZOO_LIBCUDA": str(driver)},
                check=False,
            )
        if run.returncode:
            sys.exit(f"FAILED with {run.returncode}: {refusals.read_text('utf-8', 'replace')[-5000:]}")
        seconds, accepted = time.perf_counter() - started, int(run.stdout)
        print(f"{count:,} mutated plugins and {2 * len(texts)} whole: {accepted} accepted, no fault, {seconds:.0f} s")


if __name__ == "__main__":
    main()
