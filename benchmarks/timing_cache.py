"""Does a timing cache make the second build faster? `python benchmarks/timing_cache.py [--limit-seconds 330]`

Builds one network again and again, each time in a new process: without a cache, with an empty one that is then written,
and with the written one, under one setting after another. A logger keeps TensorRT's own words at its most verbose
level: what it says of caches, how many tactics it really timed, and between which lines the time went. TensorRT 8.6
documents that level 0 ignores the cache. Prints a line when a build is done and a table in the end; `--out FILE` keeps
everything as JSON lines.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EXTERNAL = ("CUBLAS", "CUBLAS_LT", "CUDNN")
SHOWN = 8  # log lines per build in the table


# ---- cases ----------------------------------------------------------------------------------------------------------


def cases(level: int | None, heuristic: bool) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """(name, how to build with an empty cache, how with the written one; None: the same), in order of worth."""
    base: dict[str, Any] = {"level": level, "heuristic": heuristic}
    yield "as the zoo does", base, None
    yield "the cache's bytes kept alive", {**base, "reuse": "as the zoo does"}, {**base, "keep": True}
    yield "no cuBLAS, cuDNN tactics", {**base, "tactics": "internal"}, None
    yield "same process, same cache object", {**base, "twice": "object"}, {**base, "skip": True}
    yield "same process, cache serialised", {**base, "twice": "bytes"}, {**base, "skip": True}
    yield "mismatch ignored", {**base, "reuse": "as the zoo does"}, {**base, "ignore_mismatch": True}
    yield "combined into an empty cache", {**base, "reuse": "as the zoo does"}, {**base, "combine": True}
    yield "external tactics off by preview", {**base, "preview": "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"}, None
    yield "plain config, no previews", {**base, "plain": True}, None
    yield "the other way of choosing tactics", {**base, "heuristic": not heuristic}, None
    yield "another network name", {**base, "reuse": "as the zoo does"}, {**base, "network_name": "other"}
    yield "dynamic batch", {**base, "dynamic": True}, None
    yield "level 0", {"level": 0}, None
    yield "fp32", {**base, "precision": "fp32"}, None


# ---- one build, in a process of its own -----------------------------------------------------------------------------


def child(args: dict[str, Any]) -> dict[str, Any]:
    """Builds once (or twice, see `twice`) as `args` says; returns seconds and what the log said of each build."""
    import tensorrt

    from zoo.engine.build import builder_config, set_precision_flags
    from zoo.engine.definition import define
    from zoo.engine.effort import Effort
    from zoo.engine.shapes import Shapes
    from zoo.network import Precision
    from zoo.registry import get_model
    from zoo.trt import Api, Log
    from zoo.weights import RandomWeights

    listener = Listener()
    api = Api(tensorrt, "tensorrt", tensorrt.__version__, Log())
    api.log.logger = listener.logger(tensorrt, api.log)
    model = get_model(args["model"])
    shape = (1, model.input[0], args["size"], args["size"])
    shapes = Shapes(shape, shape, (4, *shape[1:])) if args.get("dynamic") else Shapes.static(shape)
    precision = Precision(args.get("precision", "fp16"))
    builds = []
    cache = None
    for turn in range(2 if args.get("twice") else 1):
        definition = define(model, RandomWeights(0), api, shapes.network, precision)
        if args.get("network_name"):
            definition.network.name = args["network_name"]
        config = builder_config(api, definition.builder, shapes, Effort(args["level"]))
        if args.get("plain"):
            config = plain_config(tensorrt, definition.builder, args["level"])
        set_precision_flags(definition, config)
        configure(tensorrt, config, args)
        blob = b""
        if args.get("read"):
            blob = Path(args["read"]).read_bytes()
        if turn and args["twice"] == "bytes":
            blob = bytes(cache.serialize())
        if args.get("cache", True) and not (turn and args["twice"] == "object"):
            cache = make_cache(config, blob, args)
        if cache is not None and not config.set_timing_cache(cache, bool(args.get("ignore_mismatch"))):
            raise RuntimeError("set_timing_cache refused")
        if not args.get("keep"):
            del blob
        listener.clear()
        start, processor = time.perf_counter(), time.process_time()
        data = definition.builder.build_serialized_network(definition.network, config)
        seconds = time.perf_counter() - start
        if data is None:
            raise RuntimeError(f"the build failed: {api.log.drain()}")
        spent = {"seconds": seconds, "cpu_s": time.process_time() - processor}
        builds.append({**spent, "engine_mb": data.nbytes / 1e6, **listener.summary()})
    if args.get("write"):
        Path(args["write"]).write_bytes(bytes(cache.serialize()))
        builds[-1]["cache_kb"] = Path(args["write"]).stat().st_size / 1e3
    return {"tensorrt": tensorrt.__version__, "builds": builds}


def plain_config(trt: Any, builder: Any, level: int | None) -> Any:
    """A config as one writes it without the zoo: nothing set but TF32 and the level."""
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if level is not None:
        config.builder_optimization_level = level
    return config


def configure(trt: Any, config: Any, args: dict[str, Any]) -> None:
    if args.get("tactics") == "internal":
        sources = config.get_tactic_sources()
        for name in EXTERNAL:
            if hasattr(trt.TacticSource, name):
                sources &= ~(1 << int(getattr(trt.TacticSource, name)))
        if not config.set_tactic_sources(sources):
            raise RuntimeError("set_tactic_sources refused")
    if args.get("preview"):
        config.set_preview_feature(getattr(trt.PreviewFeature, args["preview"]), True)
    if args.get("heuristic"):
        config.set_flag(trt.BuilderFlag.ENABLE_TACTIC_HEURISTIC)


def make_cache(config: Any, blob: bytes, args: dict[str, Any]) -> Any:
    if not args.get("combine"):
        return config.create_timing_cache(blob)
    cache, loaded = config.create_timing_cache(b""), config.create_timing_cache(blob)
    if not cache.combine(loaded, False):
        raise RuntimeError("combine refused")
    return cache


class Listener:
    """What TensorRT logged since `clear`: lines about caches, how many tactics were timed, and the seconds that passed
    before each kind of line, which tells what the work was that they report."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.lines: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.last = time.perf_counter()
        self.tactics = self.layers = self.all = 0

    def logger(self, trt: Any, log: Any) -> Any:
        listener = self

        class Logger(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                log.record(severity.name, text)
                listener.hear(severity.name, text)

        return Logger()

    def hear(self, severity: str, text: str) -> None:
        self.all += 1
        now = time.perf_counter()
        self.waits[re.sub(r"\d+", "N", generalised(text))[:70]] += now - self.last  # type: ignore[assignment]
        self.last = now
        if text.startswith("Tactic:") and "Time:" in text:
            self.tactics += 1
        elif "Autotuning" in text:
            self.layers += 1
        if "cache" in text.lower() or severity in ("ERROR", "INTERNAL_ERROR", "WARNING"):
            self.lines[f"[{severity[0]}] {generalised(text)}"] += 1

    def summary(self) -> dict[str, Any]:
        return {"tactics": self.tactics, "layers": self.layers, "log_lines": self.all,
                "said": self.lines.most_common(60), "waits": self.waits.most_common(25)}  # fmt: skip


def generalised(text: str) -> str:
    """A log line without what differs from layer to layer, so that equal ones can be counted."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x…", " ".join(text.split()))
    return re.sub(r"\d{4,}", "N", text)[:220]


# ---- all of them ----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case within the time: one record for each build."""
    records: list[dict[str, Any]] = []
    end = time.monotonic() + args.limit_seconds
    with tempfile.TemporaryDirectory() as folder:
        written: dict[str, str] = {}

        def build(case: str, step: str, settings: dict[str, Any]) -> None:
            left = end - time.monotonic()
            if left < 10:
                records.append({"case": case, "step": step, "error": "no time was left"})
                return
            full = {"model": args.model, "size": args.size, **settings}
            command = [sys.executable, __file__, "--child", json.dumps(full)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=left, cwd=ROOT)
                found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
                problem = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:300]
            except subprocess.TimeoutExpired:
                found, problem = {}, "stopped: no time was left"
            for turn, result in enumerate(found.get("builds", [])):
                name = step if turn == 0 else f"{step}, second build"
                records.append({"case": case, "step": name, "settings": full, **result})
            if problem:
                records.append({"case": case, "step": step, "settings": full, "error": problem})
            for record in records[-max(1, len(found.get("builds", []))) :]:
                print(line(record), flush=True)
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")

        if not args.cases:
            build("no cache", "built", {"level": args.level, "heuristic": args.heuristic, "cache": False})
        for name, write, read in cases(args.level, args.heuristic):
            if args.cases and not any(part in name for part in args.cases.split(",")):
                continue
            if "reuse" in write:
                path = written.get(write["reuse"], "")
            else:
                path = written[name] = str(Path(folder) / f"{len(written)}.cache")
                build(name, "written", {**write, "write": path})
            settings = write if read is None else read
            if not settings.get("skip") and Path(path).is_file():
                build(name, "read", {**settings, "read": path})
    return records


def line(record: dict[str, Any]) -> str:
    if "error" in record:
        return f"{record['case']}, {record['step']}: {record['error']}"
    return (
        f"{record['case']}, {record['step']}: {record['seconds']:.1f} s ({record['cpu_s']:.1f} s of processor), "
        f"{record['tactics']} tactics timed, {record['layers']} layers autotuned"
    )


def table(records: list[dict[str, Any]]) -> str:
    """Seconds and TensorRT's words."""
    lines = ["| case | cache | seconds | tactics timed | layers autotuned | cache kB |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for r in records:
        if "error" in r:
            cells = [r["case"], r["step"], r["error"], "", "", ""]
        else:
            size = f"{r['cache_kb']:.0f}" if "cache_kb" in r else ""
            cells = [r["case"], r["step"], f"{r['seconds']:.1f}", str(r["tactics"]), str(r["layers"]), size]
        lines.append(f"| {' | '.join(cells)} |")
    for r in records:
        said = [f"    {count} x {text}" for text, count in r.get("said", [])[:SHOWN]]
        waits = [f"    {seconds:.2f} s until {text}" for text, seconds in r.get("waits", [])[:SHOWN] if seconds > 0.05]
        lines += [f"\n{r['case']}, {r['step']}:", *(said or ["    nothing about caches"]), *waits]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov8n")
    parser.add_argument("--size", type=int, default=160, help="side of the input; build times hardly depend on it")
    parser.add_argument("--level", type=int, help="TensorRT's builder optimisation level; default: its own, 3")
    parser.add_argument("--heuristic", action="store_true", help="ENABLE_TACTIC_HEURISTIC: guess tactics, time fewer")
    parser.add_argument("--cases", default="", help="only cases whose name holds one of these, comma-separated")
    parser.add_argument("--limit-seconds", type=float, default=330)
    parser.add_argument("--out", type=Path, help="keep all records here, as JSON lines")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print("\n" + json.dumps(child(args.child)))
        return
    print(shlex.join(sys.argv), flush=True)
    print(f"\n{table(run(args))}")


if __name__ == "__main__":
    main()
