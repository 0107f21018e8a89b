"""What every session promises, whatever runs it.

Tests of one kind of session import these cases and say, with a fixture `subject`, how such a session is opened.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.preprocess import imagenet
from zoo.registry import get_model
from zoo.session import Executor, Session

LARGEST = 8


@dataclass(frozen=True)
class Subject:
    """A kind of session: `executor()` takes 1 to 8 images of `shape`, float32 in its one input `images`, and gives what
    `network` computes, up to the rounding of sums."""

    executor: Callable[[], Executor]
    network: Callable[[np.ndarray], dict[str, np.ndarray]]
    shape: tuple[int, int, int]

    def open(self, step: int | None = None) -> Session:
        model, spec = get_model("resnet18"), imagenet()
        return Session(model, self.executor(), "a test", spec, self.shape[1:], None, "none", step)

    def images(self, batch: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((batch, *self.shape), np.float32)

    def check(self, outputs: dict[str, Any], x: np.ndarray) -> None:
        want = self.network(x)
        assert outputs.keys() == want.keys()
        for name, value in outputs.items():
            assert type(value) is np.ndarray and value.dtype == np.float32 and value.flags.writeable
            np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-4)


def answers(session: Session, given: Any) -> list[dict[str, Any]]:
    """What a call and a submission give."""
    return [session(given), session.submit(given).result()]


# ---- what is taken --------------------------------------------------------------------------------------------------


def test_every_batch_in_its_range(subject: Subject) -> None:
    with subject.open() as session:
        for turn in range(3):
            for batch in (1, 3, LARGEST, 2):
                x = subject.images(batch, turn)
                for outputs in answers(session, x):
                    subject.check(outputs, x)


def test_a_dict_by_the_inputs_name(subject: Subject) -> None:
    with subject.open() as session:
        x = subject.images(2)
        for outputs in answers(session, {"images": x}):
            subject.check(outputs, x)


def test_arrays_that_are_not_contiguous_or_not_writeable(subject: Subject) -> None:
    x = subject.images(4)
    frozen = x.copy()
    frozen.flags.writeable = False
    with subject.open() as session:
        for given in (np.asfortranarray(x), x[::-1], x[::2], x[..., ::-1], frozen):
            for outputs in answers(session, given):
                subject.check(outputs, given)


class OnlyDlpack:
    """An array that speaks nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_arrays_with_dlpack(subject: Subject) -> None:
    x = subject.images(2)
    with subject.open() as session:
        for outputs in answers(session, OnlyDlpack(x)):
            subject.check(outputs, x)


def test_tensors_of_pytorch_in_host_memory(subject: Subject) -> None:
    torch = pytest.importorskip("torch")
    x = subject.images(4)
    tensor = torch.from_numpy(x)
    with subject.open() as session:
        for given in (tensor, tensor.clone().requires_grad_(), torch.nn.Parameter(tensor), tensor[1:3], tensor.mT):
            for outputs in answers(session, given):
                subject.check(outputs, given.detach().numpy())
        for given, words in (
            (tensor.bfloat16(), "bfloat16"),
            (tensor.half(), "float16"),
            (tensor.to_sparse(), "tensor"),
            (tensor.to("meta"), "tensor"),
        ):
            refused(session, given, words)


def test_more_images_than_a_step_are_run_in_steps(subject: Subject) -> None:
    with subject.open(step=LARGEST) as session:
        for batch in (1, LARGEST, LARGEST + 1, 2 * LARGEST + 3):
            x = subject.images(batch, batch)
            for given in (x, {"images": x}, x[::-1][::-1]):
                for outputs in answers(session, given):
                    subject.check(outputs, x)


# ---- what is refused ------------------------------------------------------------------------------------------------


def refused(session: Session, given: Any, words: str) -> None:
    for call in (session, session.submit):
        with pytest.raises(ZooError, match=words) as raised:
            call(given)
        assert "\n" not in str(raised.value)


def masked(x: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(x, x > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: None, "the input is a NoneType; give a numpy array"),
        (lambda x: "images", "the input is a str; give a numpy array"),
        (lambda x: x.tolist(), "the input is a list; give a numpy array"),
        (lambda x: [x, x], "the input is a list; give a numpy array"),
        (lambda x: {"images": x.tolist()}, "the input is a list; give a numpy array"),
        (lambda x: {"images": {"images": x}}, "the input is a dict; give a numpy array"),
        (lambda x: x.astype(np.float64), "input 'images' is float64, .* takes float32; convert it first"),
        (lambda x: x.astype(np.float16), "input 'images' is float16, .* takes float32; convert it first"),
        (lambda x: x.astype(np.uint8), "input 'images' is uint8, .* takes float32; convert it first"),
        (lambda x: x.astype(">f4"), "input 'images' is >f4, .* takes float32; convert it first"),
        (lambda x: x.astype(object), "input 'images' is object, .* takes float32; convert it first"),
        (masked, "the input is a masked array, .*; fill it first"),
        (lambda x: np.float32(1), "the input is a float32; give a numpy array"),
        (lambda x: {"image": x}, "image.* 'images'|no input 'image'; it has images"),
        (lambda x: {"images": x, "more": x}, "more"),
        (lambda x: {1: x}, "1"),
        (lambda x: {}, "none|'images' is missing"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_harmless(subject: Subject, change: Any, words: str) -> None:
    with subject.open() as session:
        x = subject.images(2)
        refused(session, change(x), words)
        subject.check(session(x), x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[0],
        lambda x: x[None],
        lambda x: x[..., :-1],
        lambda x: x[:, :, 1:],
        lambda x: x[:, :1],
        lambda x: x[:0],
        lambda x: np.repeat(x, LARGEST, 0),
    ],
)
def test_other_shapes_are_refused_and_harmless(subject: Subject, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with subject.open() as session:
        x = subject.images(2)
        shape = change(x).shape
        refused(session, change(x), rf"\b{shape[0]} images.* takes |" + r"\D+".join(map(str, shape)) + r"\b.* takes ")
        subject.check(session(x), x)


# ---- whose the results are ------------------------------------------------------------------------------------------


def test_results_are_the_callers_own(subject: Subject) -> None:
    with subject.open() as session:
        given = [subject.images(2, seed) for seed in range(4)]
        found = [outputs for x in given for outputs in answers(session, x)]
        for outputs, x in zip(found, np.repeat(given, 2, 0)):
            subject.check(outputs, x)
        for outputs in found:
            for value in outputs.values():
                value[:] = -1
        subject.check(session(given[0]), given[0])


def test_views_are_right_until_the_next_call(subject: Subject) -> None:
    with subject.open() as session:
        for seed in range(3):
            subject.check(session(x := subject.images(2, seed), views=True), x)


def test_a_submission_is_of_what_was_given_then(subject: Subject) -> None:
    with subject.open() as session:
        given = subject.images(2)
        x = given.copy()
        pending = session.submit(given)
        given[:] = 0
        subject.check(pending.result(), x)
        subject.check({**session(given)}, given)


@pytest.mark.parametrize("step", [None, 2])
def test_results_come_in_any_order_and_stay(subject: Subject, step: int | None) -> None:
    with subject.open(step) as session:
        given = [subject.images(3, seed) for seed in range(6)]
        pending = [session.submit(x) for x in given]
        for submitted, x in reversed(list(zip(pending, given))):
            first = submitted.result()
            subject.check(first, x)
            assert submitted.result() is first


# ---- threads and the end --------------------------------------------------------------------------------------------


def test_threads_share_a_session(subject: Subject) -> None:
    with subject.open() as session:
        start = threading.Barrier(8)

        def work(thread: int) -> None:
            start.wait()
            for turn in range(6):
                x = subject.images(turn % LARGEST + 1, 100 * thread + turn)
                pending = session.submit(x[::-1])
                subject.check(session(x), x)
                subject.check(pending.result(), x[::-1])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))


@pytest.mark.parametrize("copy", [pickle.dumps, deepcopy])
def test_a_session_cannot_be_handed_to_another_process(subject: Subject, copy: Callable[[Any], Any]) -> None:
    with subject.open() as session, pytest.raises(ZooError, match="cannot be copied nor handed to another one"):
        copy(session)


def test_a_closed_session_refuses_everything(subject: Subject) -> None:
    x = subject.images(2)
    with subject.open() as session:
        session(x)
    session.close()
    for given in (x, {"images": x}, None):
        refused(session, given, "the session is closed")
    with pytest.raises(ZooError, match="the session is closed"):
        session.predict(np.zeros((*subject.shape[1:], 3), np.uint8))


def test_what_was_submitted_before_the_end_has_its_result(subject: Subject) -> None:
    session = subject.open()
    given = [subject.images(2, seed) for seed in range(3)]
    pending = [session.submit(x) for x in given]
    session.close()
    for submitted, x in zip(pending, given):
        subject.check(submitted.result(), x)


def test_closing_beside_calls(subject: Subject) -> None:
    """Every call is answered, or told that the session is closed."""
    for turn in range(3):
        session, x = subject.open(), subject.images(2, turn)
        start = threading.Barrier(5)

        def work(call: Callable[[], dict[str, Any]], session: Session = session, x: np.ndarray = x) -> None:
            start.wait()  # noqa: B023
            with pytest.raises(ZooError, match="the session is closed"):
                while True:
                    subject.check(call(), x)

        calls = [lambda s=session, x=x: s(x), lambda s=session, x=x: s.submit(x).result()] * 2
        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(work, call) for call in calls]
            start.wait()
            session.close()
            for future in done:
                future.result(timeout=20)
