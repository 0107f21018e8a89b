"""`python -m zoo.batch`: many pictures over many processes and machines, by Ray Data, into one Parquet file."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import (
    Fp16,
    Json,
    ModelOrFile,
    Size,
    Together,
    WeightsOption,
    command,
    note,
    precision_name,
    print_json,
    size_of,
)
from zoo.device import named_gpus, parse_device
from zoo.discovery import imported_files
from zoo.errors import ZooError
from zoo.files import checked_destination, replacing
from zoo.registry import get_cascade, get_model
from zoo.run import with_task_options
from zoo.runtime.rows import COLUMNS, Work, Worker, try_out
from zoo.tasks import get_task
from zoo.text import clean

BLOCK = 32  # pictures that a worker is given at once, and that are repeated when it is lost
MOST_BLOCKS = 20_000  # what Ray keeps an eye on at once; more pictures make larger blocks
SPARE_CPUS = 1  # of Ray's, which its own tasks need beside the workers: without any it waits for ever
LOST = "the worker process ended at this picture"
TOLD = 10  # seconds from one line of progress to the next


def run(
    model: ModelOrFile,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, folders, globs, lists (.txt), Parquet files, and s3:// or gs:// addresses of them.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A row for each picture goes there.")] = Path(
        "results.parquet"
    ),
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Sessions. Default: one a GPU, else one a core.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that did not finish; what is done is kept.")
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", help="Of Parquet files: has the pictures, or their addresses. Default: the one with bytes."
        ),
    ] = None,
    batch: Together = 1,
    weights: WeightsOption = None,
    size: Size = None,
    fp16: Fp16 = False,
    device: Annotated[
        str, typer.Option("--device", help="cpu, gpu, auto (GPUs where Ray has any), or GPUs of this machine: 0,1.")
    ] = "auto",
    as_json: Json = False,
    **chosen: Any,
) -> None:
    """Runs MODEL on every picture of the SOURCEs, on the cores or GPUs of this machine or of a Ray cluster.

    RAY_ADDRESS names a cluster. What goes wrong with a picture stands in the column `error` of its row. Exit status 1
    when some pictures have an error, 2 when all have.
    """
    from zoo.images.addresses import list_addresses

    _libraries()
    gpus = named_gpus(device)
    checked_destination(output)
    work = _work(model, weights, size_of(size), precision_name(fp16, False), batch, column, chosen)
    addresses = list(dict.fromkeys(list_addresses(sources, column)))  # a row for each
    journal = Journal(output.with_name(f"{output.name}.rows"), _identity(work))
    if resume and output.exists() and not journal.path.exists():
        print(f"{clean(str(output))}: that run is finished")
        return
    done = journal.open(resume)
    started = time.perf_counter()
    with (
        journal,
        redirect_stdout(sys.stderr),
        _ray(workers, device, gpus) as share,
    ):  # Ray prints what happens to workers
        left = [address for address in addresses if address not in done]
        if done:
            note(f"{len(addresses) - len(left)} of {len(addresses)} pictures are done; continuing")
        _predict(left, work, share, journal, len(addresses))
    seconds = time.perf_counter() - started
    wrong = journal.write_parquet(output, addresses)
    result = {"rows": len(addresses), "errors": wrong, "file": str(output), "seconds": round(seconds, 1)}
    if as_json:
        print_json(result)
    else:
        rate = (
            f"{len(left) / seconds:.1f} pictures/s with {share.workers} workers" if left else "nothing was left to do"
        )
        print(f"{clean(str(output))}: {len(addresses)} rows, {wrong} with an error; {rate}")
    sys.exit(2 if wrong == len(addresses) else 1 if wrong else 0)


def _work(
    model: str, weights: str | None, size: tuple[int, int] | None, precision: Any, batch: int, column: str | None,
    chosen: dict[str, Any],
) -> Work:  # fmt: skip
    """What workers are told, with what can be wrong told here first: a worker would be started again and again."""
    from zoo.api import find_weights, is_engine, model_in

    if weights is None:
        model, weights = model_in(model)
    options = {name: value for name, value in chosen.items() if value is not None}
    arguments: dict[str, Any] = {"source": os.path.abspath(model) if os.path.exists(model) else model}
    if not is_engine(model):
        entry = get_cascade(model) or get_model(model)
        get_task(entry.task).settings(entry.options, options)
        arguments |= {"size": size, "precision": precision, "batch": None}
        if get_cascade(model) is None:
            name = find_weights(get_model(model), weights).name
            arguments["weights"] = os.path.abspath(name) if os.path.exists(name) else name
        elif weights is not None:
            arguments["weights"] = weights
    return Work(arguments, options, os.getcwd(), batch, column, tuple(imported_files()))


def _identity(work: Work) -> dict[str, Any]:
    """What the rows of one journal have in common."""
    return {"load": work.load, "options": work.options, "column": work.column}


class Journal:
    """The rows of a run that is not finished: JSON, one a line, after a line that says of what they are."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))
        self._file: Any = None
        self._empty = True

    def open(self, resume: bool) -> set[str]:
        """Begins or continues the file; gives the sources that are done. Raises ZooError for a file of another run, and
        for any if it is not to be continued."""
        if not self.path.exists():
            self._file = open(self.path, "w", encoding="utf-8")
            self._append([self.identity])
            return set()
        if not resume:
            raise ZooError(
                f"{self.path} holds the rows of a run that did not finish; continue it with --resume, or remove it"
            )
        self._drop_torn_line()
        lines = self._lines()
        found = next(lines, None)
        if found != self.identity:
            raise ZooError(
                f"{self.path} is of a run with another model, other weights or options; give those of that run, or "
                "remove that file"
            )
        done = {row["source"] for row in lines}
        self._empty = not done
        self._file = open(self.path, "a", encoding="utf-8")
        return done

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows, which are then on the disk whatever happens to this process."""
        self._append(rows)
        self._empty = False

    def _append(self, rows: Iterable[dict[str, Any]]) -> None:
        try:
            self._file.writelines(json.dumps(row) + "\n" for row in rows)
            self._file.flush()
        except OSError as error:
            raise ZooError(f"cannot write {self.path}: {error.strerror}; --resume continues the run") from None

    def _lines(self) -> Iterator[dict[str, Any]]:
        with open(self.path, encoding="utf-8") as file:
            yield from map(json.loads, file)

    def _drop_torn_line(self) -> None:
        """Cuts off what was being written when the process ended."""
        with open(self.path, "rb+") as file:
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)

    def write_parquet(self, output: Path, addresses: list[str]) -> int:
        """Writes the rows of `addresses`, in their order, and removes the journal; gives how many have an error."""
        import pyarrow
        from pyarrow import parquet

        rows = {row["source"]: row for row in list(self._lines())[1:]}
        schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
        wrong = 0
        with replacing(output) as file, parquet.ParquetWriter(file, schema) as writer:
            for start in range(0, len(addresses), 10_000):
                part = [rows[address] for address in addresses[start : start + 10_000]]
                wrong += sum(row.get("error") is not None for row in part)
                columns = {name: [row.get(name) for row in part] for name in COLUMNS}
                writer.write_table(pyarrow.table(columns, schema=schema))
        self.path.unlink()
        return wrong

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None and self._empty:
            self.path.unlink()


# Ray


class Share:
    """What each worker asks Ray for."""

    def __init__(self, workers: int, cpus: float, gpus: float) -> None:
        self.workers, self.cpus, self.gpus = workers, cpus, gpus

    @property
    def resources(self) -> dict[str, float]:
        return {"num_cpus": self.cpus, **({"num_gpus": self.gpus} if self.gpus else {})}


def _libraries() -> None:
    try:
        import pyarrow  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ZooError(
            f'this command needs Ray Data and pyarrow ({error}); install them: pip install "tensorrt-zoo[batch]"'
        ) from None


@contextmanager
def _ray(workers: int | None, device: str, gpus: tuple[int, ...]) -> Iterator[Share]:
    """Ray, here (with these `gpus` only, if any are named) or where RAY_ADDRESS says, and each worker's share of it.

    All CPUs that Ray counts must never be taken by workers: it reads and moves data in tasks of its own, and without
    one for them it waits without a word. What is started here counts one more for each.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no request leaves the machine
    cluster = os.environ.get("RAY_ADDRESS")
    cores = os.cpu_count() or 1
    if cluster and gpus:
        raise ZooError(f"--device {device} names GPUs of this machine, RAY_ADDRESS a cluster; give --device gpu")
    here: dict[str, Any] = (
        {} if cluster else {"num_cpus": (workers or cores) + SPARE_CPUS + 1, "include_dashboard": False}
    )
    if gpus:
        _leave_only(gpus)
        here["num_gpus"] = len(gpus)
    try:
        ray.init(address=cluster, logging_level=logging.ERROR, log_to_driver=False, **here)
    except ConnectionError as error:
        raise ZooError(f"the Ray cluster at {cluster} cannot be reached: {error}") from None
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # what they lack is done one by one afterwards
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield _share(ray.cluster_resources(), workers, "gpu" if gpus else device, cores)
    finally:
        ray.shutdown()


def _leave_only(gpus: tuple[int, ...]) -> None:
    """Hides the other GPUs from Ray and its workers, who see one each. Raises ZooError for one that is not there."""
    from zoo.runtime.engines import require_gpu

    for gpu in gpus:
        require_gpu(gpu)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(max(gpus) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in gpus)


def _share(resources: dict[str, float], workers: int | None, device: str, cores: int) -> Share:
    """The part of a cluster's resources for each worker. Raises ZooError for a cluster that has too few."""
    wanted = parse_device(device).kind
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    if wanted == "gpu" and not gpus:
        raise ZooError("Ray has no GPU here; leave --device gpu away, or name a cluster that has with RAY_ADDRESS")
    on_gpu = gpus > 0 and wanted != "cpu"
    count = workers or (int(gpus) if on_gpu else max(int(min(cpus - SPARE_CPUS, cores)), 1))
    share = math.floor(100 * min(1.0, (cpus - SPARE_CPUS) / count)) / 100
    if share <= 0:
        raise ZooError(
            f"Ray counts {cpus:g} CPUs, which is too few for {count} workers and {SPARE_CPUS} for Ray itself; give "
            "fewer --workers, or start Ray with more --num-cpus"
        )
    return Share(count, share, min(1.0, gpus / count) if on_gpu else 0.0)


def _predict(addresses: list[str], work: Work, share: Share, journal: Journal, total: int) -> None:
    """Appends a row for each address to the journal: block by block, and what is then missing, as the worker ended at
    one of a block, picture by picture."""
    tell = _progress(total, total - len(addresses))
    work = _placed(work, share)
    if addresses:
        _try_out(work, share)
    missing = dict.fromkeys(addresses)
    for rows in _blocks(addresses, work, share):
        journal.add(rows)
        for row in rows:
            missing.pop(row["source"], None)
        tell(len(rows))
    if missing:
        note(f"{len(missing)} pictures are tried one by one: they were in blocks whose worker ended")
    for row in _one_by_one(list(missing), work, share):
        journal.add([row])
        tell(1)


def _try_out(work: Work, share: Share) -> None:
    """Starts a worker once, which builds an engine where one is needed. Raises what is wrong with the model: Ray would
    start worker after worker."""
    import ray

    try:
        ray.get(ray.remote(try_out).options(max_retries=0, **share.resources).remote(work))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ZooError):
            raise error.cause from None
        raise


def _placed(work: Work, share: Share) -> Work:
    """`work` for workers with this share of a machine."""
    cores = os.cpu_count() or 1
    threads = max(cores // share.workers, 1)
    on_gpu = share.gpus > 0
    where = {"device": "gpu"} if on_gpu else {"device": "cpu", "threads": threads}
    return replace(work, load=work.load | where, readers=threads)


def _blocks(addresses: list[str], work: Work, share: Share) -> Iterator[list[dict[str, Any]]]:
    """The rows of blocks in the order in which they are finished; those that could not be finished are left out.

    A worker that ends is started again, and its block tried once more.
    """
    import ray

    if not addresses:
        return
    size = max(BLOCK, math.ceil(len(addresses) / MOST_BLOCKS))
    blocks = math.ceil(len(addresses) / size)
    data = ray.data.from_items([{"source": address} for address in addresses], override_num_blocks=blocks)
    with warnings.catch_warnings():  # before 2.64, for which pyproject.toml waits, no other way is there to say it
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        found = data.map_batches(
            Worker,
            fn_constructor_args=(work,),
            # Ray wants a number for GPUs: what every block has at least, or it would join blocks to reach it
            batch_size=len(addresses) // blocks if share.gpus else None,
            compute=ray.data.ActorPoolStrategy(size=min(share.workers, blocks)),
            max_restarts=-1,
            max_task_retries=1,
            **share.resources,
        )
    for table in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield table.to_pylist()


def _one_by_one(addresses: list[str], work: Work, share: Share) -> Iterator[dict[str, Any]]:
    """The row of each picture, each given to a worker by itself; one that ends its worker costs that one only."""
    import ray

    left = addresses[::-1]
    kind = ray.remote(Worker).options(max_restarts=0, **share.resources)
    running: dict[Any, tuple[Any, str]] = {}  # what will be there -> (worker, address)

    def give(worker: Any) -> None:
        if left:
            address = left.pop()
            running[worker.rows.remote([address])] = worker, address

    for _ in range(min(share.workers, len(addresses))):
        give(kind.remote(work))
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        worker, address = running.pop(ready)
        try:
            (row,) = ray.get(ready)
        except ray.exceptions.RayActorError:
            row, worker = {"source": address, "error": LOST}, kind.remote(work) if left else None
        yield row
        if worker is not None:
            give(worker)


def _progress(total: int, done: int) -> Callable[[int], None]:
    """Says how many pictures are done, now and then."""
    state = {"done": done, "told": time.perf_counter()}

    def tell(count: int) -> None:
        state["done"] += count
        if time.perf_counter() - state["told"] > TOLD:
            state["told"] = time.perf_counter()
            note(f"{state['done']} of {total} pictures")

    return tell


main = command(run, extend=with_task_options)

if __name__ == "__main__":
    main()
