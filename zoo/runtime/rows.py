"""Pictures by their addresses to rows of results: what a worker of `zoo.batch` does."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = {"source": "string", "width": "int32", "height": "int32", "result": "string", "error": "string"}


@dataclass(frozen=True)
class Work:
    """What workers are told: the arguments of `zoo.load`, the options of results, where relative addresses begin, the
    column of Parquet files, and Python files to be run first (`--import`)."""

    load: dict[str, Any]
    options: dict[str, Any]
    folder: str
    batch: int = 1
    column: str | None = None
    imports: tuple[Path, ...] = ()
    readers: int = 1  # threads that read and decode


def try_out(work: Work) -> None:
    """Makes a worker and lets it go. Raises ZooError where none can be made."""
    Worker(work).close()


class Worker:
    """A session that is given addresses and gives rows: `worker({"source": addresses})` -> a list for each column.

    What is wrong with a picture stands in its row's `error`, beside an empty `result`; one that ends the process ends
    the worker.
    """

    def __init__(self, work: Work) -> None:
        from zoo.api import load
        from zoo.discovery import import_file
        from zoo.runtime.predict import make_predictor

        for path in work.imports:
            import_file(path)
        self.work = work
        self.predictor = make_predictor(load(**work.load), batch=work.batch, **work.options)
        self.readers = ThreadPoolExecutor(work.readers)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows = self.rows([str(source) for source in batch["source"]])
        return {column: [row.get(column) for row in rows] for column in COLUMNS}

    def rows(self, addresses: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each address, in their order."""
        pending = [self._submit(found) for found in self.readers.map(self._read, addresses)]
        return [self._row(address, item) for address, item in zip(addresses, pending)]

    def _read(self, address: str) -> np.ndarray | ZooError:
        from zoo.images.addresses import read_address
        from zoo.images.sources import decode_image

        local = address if "://" in address else os.path.join(self.work.folder, address)
        try:
            return decode_image(read_address(local, self.work.column), address)
        except ZooError as error:
            return error

    def _submit(self, found: np.ndarray | ZooError) -> tuple[tuple[int, int], Any] | ZooError:
        """The picture's (height, width) and its pending prediction."""
        if isinstance(found, ZooError):
            return found
        try:
            return found.shape[:2], self.predictor.submit(found)
        except ZooError as error:
            return error

    def _row(self, address: str, item: tuple[tuple[int, int], Any] | ZooError) -> dict[str, Any]:
        row: dict[str, Any] = {"source": address}
        if isinstance(item, ZooError):
            return row | {"error": str(item)}
        (height, width), pending = item
        row |= {"width": width, "height": height}
        try:
            found = self.predictor.task.to_json(pending.result().result)
        except ZooError as error:
            return row | {"error": str(error)}
        return row | {"result": json.dumps(found)}

    def close(self) -> None:
        self.readers.shutdown()
        self.predictor.close()
        self.predictor.session.close()
