"""Weights: both file formats bit by bit, every kind of damage, accounting, random numbers."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as library

from zoo.errors import ZooError
from zoo.weights import (
    RandomWeights,
    Weights,
    from_arrays,
    load_weights,
    parse_weights,
    save_safetensors,
    save_wts,
)

Arrays = dict[str, np.ndarray]

ROOT = Path(__file__).resolve().parents[1]

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
FLOATS = hnp.arrays(np.uint32, SHAPES).map(lambda bits: np.asarray(bits).view(np.float32))  # every payload of every NaN
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
WORDS = NAMES.filter(lambda name: name.encode().split() == [name.encode()])
DTYPES = ["f2", "f4", "f8", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f4", ">i4"]
ARRAYS = st.one_of(FLOATS, *(hnp.arrays(dtype, SHAPES) for dtype in DTYPES))

SPECIAL = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 1], np.uint32)
SAMPLE: Arrays = {
    "conv.weight": np.arange(-6, 6, dtype=np.float32).reshape(3, 2, 2, 1) / 7,
    "special": SPECIAL.view(np.float32),
    "scalar": np.array(1.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
    "fc.bias": np.array([1e-45, 3.4e38, -1.0], np.float32),
}


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, derandomize=True)


def load(content: bytes, name: str = "weights.wts") -> Weights:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return load_weights(path)


def saved(save: Callable[..., None], *args: object) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "file"), *args)
        return Path(folder, "file").read_bytes()


def read_all(weights: Weights) -> dict[str, bytes]:
    """The bytes of every tensor, by name."""
    shapes = {name: weights.shape(name) for name in weights.names()}
    flat = {name: (weights.size(name),) for name in shapes}
    return {
        name: weights.read(name, flat[name] if shape is None else shape).tobytes() for name, shape in shapes.items()
    }


def values(arrays: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


# The .wts dialects, each written the plain way


def _text(arrays: Arrays, line: Callable[[str, list[str]], str], end: str = "\n", word: str = "{:08x}") -> bytes:
    words = {name: [word.format(bits) for bits in array.ravel().view(np.uint32)] for name, array in arrays.items()}
    return "".join([f"{len(arrays)}{end}", *(line(name, w) + end for name, w in words.items())]).encode()


def one_space(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]))


def two_spaces(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: f"{name} {len(words)} " + "".join(f" {w}" for w in words))


def prefixed(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]), word="{:#x}")


def prefixed_upper_case(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]), word="{:#X}")


def windows(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]), end="\r\n")


def trailing_blanks(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]) + "  ", end=" \n")


def tabs(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: "\t".join([name, str(len(words)), *words]))


def upper_case(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: " ".join([name, str(len(words)), *words]), word="{:08X}")


def uneven(arrays: Arrays) -> bytes:
    return _text(arrays, lambda name, words: f" {name}  {len(words)}   " + "   ".join(words))


def blank_lines(arrays: Arrays) -> bytes:
    return one_space(arrays).replace(b"\n", b"\n\n \n")


def no_last_newline(arrays: Arrays) -> bytes:
    return one_space(arrays).removesuffix(b"\n")


DIALECTS = [
    one_space,
    two_spaces,
    prefixed,
    prefixed_upper_case,
    windows,
    trailing_blanks,
    tabs,
    upper_case,
    uneven,
    blank_lines,
    no_last_newline,
]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(arrays=st.dictionaries(WORDS, FLOATS, max_size=4))
@examples(15)
def test_every_wts_dialect_reads_the_same(dialect: Callable[[Arrays], bytes], arrays: Arrays) -> None:
    weights = load(dialect(arrays))
    assert weights.names() == list(arrays)
    assert read_all(weights) == values(arrays)


def test_a_short_line_does_not_swallow_the_next() -> None:
    content = b"2\na 2 0x0 0x0\nb 1 0x123\n"  # with 8 digits a value, the line of a would end where that of b does
    assert load(content).names() == ["a", "b"]


@pytest.mark.parametrize("dialect", [one_space, prefixed, tabs])
@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 100_000])
def test_long_lines(dialect: Callable[[Arrays], bytes], size: int) -> None:
    arrays = {"a": np.arange(7, size + 7, dtype=np.uint32).view(np.float32), "b": np.ones(3, np.float32)}
    assert read_all(load(dialect(arrays))) == values(arrays)


@given(arrays=st.dictionaries(WORDS, FLOATS, max_size=4))
@examples(60)
def test_wts_round_trip_is_exact(arrays: Arrays) -> None:
    weights = load(saved(save_wts, arrays))
    for name, array in arrays.items():
        read = weights.read(name, array.shape)
        assert (read.dtype, read.shape, read.tobytes()) == (np.float32, array.shape, array.tobytes())


def test_wts_is_the_form_of_tensorrtx_byte_for_byte() -> None:
    arrays = {
        "conv1.weight": np.array([[1, 0.5], [-2, -0.0]], np.float64).T,
        "bn1.num_batches_tracked": np.array(3),
        "empty": np.zeros(0),
    }
    assert saved(save_wts, arrays) == (
        b"3\nconv1.weight 4 3f800000 c0000000 3f000000 80000000\nbn1.num_batches_tracked 1 40400000\nempty 0\n"
    )


MEASURE = """
import sys
from pathlib import Path
from zoo.weights import load_weights

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

before = resident("VmRSS")
weights = load_weights(sys.argv[1])
arrays = [weights.read(name, (weights.size(name),)) for name in weights.names()]
print((resident("VmHWM") - before) / sum(array.nbytes for array in arrays))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory figures")
def test_reading_a_wts_file_takes_little_more_memory_than_its_values(tmp_path: Path) -> None:
    save_wts(tmp_path / "a.wts", {str(i): np.ones(1_000_000, np.float32) for i in range(8)})
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "a.wts"], check=True, capture_output=True, cwd=ROOT
    )
    assert float(measured.stdout) < 1.3  # with the whole text in memory it would be 3.25


def test_wts_long_arrays_are_written_on_one_line() -> None:
    arrays = {"a": np.arange(40_000, dtype=np.uint32).view(np.float32)}
    assert saved(save_wts, arrays) == one_space(arrays)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\t"])
def test_wts_refuses_names_that_it_could_not_read_back(name: str) -> None:
    with pytest.raises(ZooError, match="no blanks"):
        saved(save_wts, {name: np.ones(1)})


# Damage


def plain(content: bytes) -> dict[str, bytes]:
    """A .wts reader without any cleverness, to compare with."""
    first, *lines = content.split(b"\n")
    found = {}
    for line in lines:
        if line.strip():
            name, count, *words = line.split()
            assert len(words) == int(count)
            assert all(len(word) == 8 or word[:2] in (b"0x", b"0X") for word in words)
            assert name not in found
            found[name] = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    assert len(found) == int(first)
    return {name.decode(errors="replace"): data for name, data in found.items()}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wts_file_cut_anywhere_is_an_error_or_complete(dialect: Callable[[Arrays], bytes]) -> None:
    content = dialect(SAMPLE)
    intact = len(content.rstrip())
    for length in range(len(content)):
        try:
            found = read_all(load(content[:length]))
        except ZooError:
            assert length <= intact
        else:
            assert length >= intact
            assert found == values(SAMPLE)


@given(data=st.data(), dialect=st.sampled_from(DIALECTS))
@examples(400)
def test_a_garbled_wts_file_is_an_error_or_means_what_it_says(
    data: st.DataObject, dialect: Callable[[Arrays], bytes]
) -> None:
    content = dialect(SAMPLE)
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(begin + 12, len(content))))
    junk = st.one_of(
        st.binary(max_size=4), st.text("0123456789abcdefABCDEFxX \t\r\n\v-+_", max_size=12).map(str.encode)
    )
    content = content[:begin] + data.draw(junk) + content[end:]
    try:
        found = read_all(load(content))
    except ZooError:
        return
    assert found == plain(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2\na 1 00000000\nb 3 00000000 3f80", r"line 3, 'b': value 2 of 3 is b'3f80'.*cut short"),
        (b"2\na 1 00000000\nb 3 00000000 ", r"line 3, 'b': 3 values expected, 1 found.*cut short"),
        (b"2\na 1 00000000\nb 3", r"line 3, 'b': 3 values expected, 0 found.*cut short"),
        (b"2\na 1 00000000\nb", r"line 3: b'b' is not a name and a number of values"),
        (b"2\na 1 00000000\n", r"first line says 2 tensors, 1 follow"),
        (b"1\na 1 00000000\nb 1 00000000\n", r"first line says 1 tensors, 2 follow"),
        (b"1\na 2 00000000\n", r"line 2, 'a': 2 values expected, 1 found$"),
        (b"1\na 1 00000000 00000000\n", r"line 2, 'a': 1 values expected, 2 found$"),
        (b"1\na 0 00000000\n", r"line 2, 'a': 0 values expected, 1 found$"),
        (b"2\na 2 00000000\nb 1 00000000\n", r"line 2, 'a': 2 values expected, 1 found$"),
        (b"1\na 2 00000000 0000000g\n", r"line 2, 'a': value 2 of 2 is b'0000000g', not 8 hex digits$"),
        (b"1\na 2 00000000 :000000/\n", r"line 2, 'a': value 2 of 2 is b':000000/'"),
        (b"1\na 2 00 00000000 0000\n", r"line 2, 'a': value 1 of 2 is b'00'"),
        (b"1\na 2 3f8000 0040000000\n", r"line 2, 'a': value 1 of 2 is b'3f8000'"),
        (b"1\na 2 3f800000         \n", r"line 2, 'a': 2 values expected, 1 found$"),
        (b"1\na 2 3f8000   40000000\n", r"line 2, 'a': value 1 of 2 is b'3f8000'"),
        (b"1\na 1 0000000\n", r"line 2, 'a': value 1 of 1 is b'0000000'"),
        (b"1\na 1 000000000\n", r"line 2, 'a': value 1 of 1 is b'000000000'"),
        (b"1\na 1 0x\n", r"line 2, 'a': value 1 of 1 is b'0x'"),
        (b"1\na 1 0x123456789\n", r"line 2, 'a': value 1 of 1 is b'0x123456789'"),
        (b"1\na 1 0x3f80", r"line 2, 'a': the file ends in this line, it was probably cut short"),
        (b"1\na 1 -0000000\n", r"line 2, 'a': value 1 of 1 is b'-0000000'"),
        ("1\na 1 ٠٠٠٠\n".encode(), r"line 2, 'a': value 1 of 1 is b'\\xd9"),
        (b"2\na 1 00000000\na 1 00000000\n", r"line 3, 'a': an earlier line has that name"),
        (b"1\na -1 00000000\n", r"line 2: b'a -1 00000000' is not a name and a number of values"),
        (b"1\na 1.0 00000000\n", r"line 2: b'a 1.0 00000000' is not a name and a number of values"),
        (b"1\na 999999999999999999 00000000\n", r"line 2, 'a': 999999999999999999 values expected, 1 found"),
        (b"1\na 9999999999999999999999 00000000\n", r"line 2: .* is not a name and a number of values"),
        (b"1\n" + b"\0" * 99, r"line 2: .* is not a name and a number of values"),
        (b"-1\na 1 00000000\n", r"not safetensors, nor \.wts.*not b'-1"),
        (b"one\na 1 00000000\n", r"not safetensors, nor \.wts.*not b'one"),
        (b"\x7fELF" + bytes(range(256)), r"not safetensors, nor \.wts"),
        (b"9" * 5000 + b"\n", r"not safetensors, nor \.wts"),
    ],
)
def test_wts_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ZooError, match=r"weights\.wts .*" + message):
        read_all(load(content))


def test_a_damaged_tensor_does_not_count_as_read() -> None:
    weights = load(b"1\na 1 0000000g\n")
    with pytest.raises(ZooError, match="0000000g"):
        weights.read("a", (1,))
    assert weights.unused() == ["a"]


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"")
    for content in (archive.getvalue(), pickle.dumps({"a": 1}, protocol=2)):
        path = tmp_path / "resnet50.pth"
        path.write_bytes(content)
        with pytest.raises(ZooError, match=r"resnet50\.pth (cannot be read as|holds no state_dict)"):
            load_weights(path, model="resnet50")
    with pytest.raises(ZooError, match=r"is empty; make it with: python -m zoo.gen_wts MODEL$"):
        load(b"")
    with pytest.raises(ZooError, match=r"no weights file .*gone\.wts; make it with: python -m zoo.gen_wts yolov8n$"):
        load_weights(tmp_path / "gone.wts", model="yolov8n")
    with pytest.raises(ZooError, match="cannot read"):
        load_weights(tmp_path)


# safetensors


@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4), metadata=st.dictionaries(NAMES, NAMES, max_size=3))
@examples(60)
def test_safetensors_round_trip_is_exact(arrays: Arrays, metadata: dict[str, str]) -> None:
    weights = load(saved(save_safetensors, arrays, metadata))
    assert weights.metadata == metadata
    assert sorted(weights.names()) == sorted(arrays)
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            expected = array.astype("=f4" if array.dtype.kind == "f" else array.dtype.newbyteorder("="))
        read = weights.read(name, array.shape)
        assert weights.shape(name) == array.shape
        assert (read.dtype, read.shape, read.tobytes()) == (expected.dtype, array.shape, expected.tobytes())


@given(
    arrays=st.dictionaries(NAMES, FLOATS, min_size=1, max_size=4),  # the library writes bad JSON for no tensors
    metadata=st.dictionaries(NAMES, NAMES, max_size=3),
)
@examples(60)
def test_safetensors_agree_with_the_library(arrays: Arrays, metadata: dict[str, str]) -> None:
    assert values(library.load(saved(save_safetensors, arrays, metadata))) == values(arrays)
    assert read_all(load(library.save(arrays, metadata), "weights")) == values(arrays)


@pytest.mark.parametrize("length", range(8))
def test_safetensors_are_not_copied(length: int) -> None:
    weights = load(saved(save_safetensors, SAMPLE, {"note": "x" * length}))
    first, second = (weights.read("conv.weight", (3, 2, 2, 1)) for _ in range(2))
    assert np.shares_memory(first, second)


def make(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: object = "F32", shape: object = (1,), begin: object = 0, end: object = 4) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_bfloat16_becomes_float32_exactly() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x7FC1, 0x0001], np.uint16)
    read = load(make({"a": entry("BF16", (5,), 0, 10)}, bits.tobytes())).read("a", (5,))
    assert read.dtype == np.float32
    assert read.tobytes() == (bits.astype(np.uint32) << 16).tobytes()


def test_misaligned_tensors_are_aligned_when_read() -> None:
    content = make({"b": entry("U8", (1,), 0, 1), "a": entry("F32", (1,), 1, 5)}, b"\7" + struct.pack("<f", 2.5))
    read = load(content).read("a", (1,))
    assert read.flags.aligned
    assert read == 2.5


def test_a_safetensors_file_cut_anywhere_is_an_error() -> None:
    content = saved(save_safetensors, {"a": SAMPLE["fc.bias"], "n": SAMPLE["none"]}, {"model": "x"})
    for length in range(len(content)):
        for name in ("weights", "weights.safetensors"):
            with pytest.raises(ZooError):
                load(content[:length], name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<Q", 1 << 60) + b"{}", "header ends at byte 1152921504606846984, the file at byte 10"),
        (struct.pack("<Q", 0), "header ends at byte 8, the file at byte 8"),
        (b"123", "header ends at byte .*, the file at byte 3"),
        (make(b"{nonsense}"), "header is not JSON"),
        (make(b'{"\xff": 1}'), "header is not JSON"),
        (make(b"[1, 2]"), "header is not a JSON object"),
        (make(b"[" * 100_000), "header is not JSON"),
        (make(b'{"a": 1, "a": 2}'), "'a' stands there twice"),
        (make({"__metadata__": {"a": 1}}), "metadata is not a table of strings"),
        (make({"__metadata__": []}), "metadata is not a table of strings"),
        (make({"a": 1}), "'a' is described as 1"),
        (make({"a": {}}), "'a' is described as {}"),
        (make({"a": entry("F8_E4M3", (4,))}, bytes(4)), "'a' is described as .*F8_E4M3"),
        (make({"a": entry(["F32"])}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=[-1])}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=[1.0])}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=None)}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=[True])}, bytes(4)), "'a' is described as"),
        (make({"a": entry(begin=-4, end=0)}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=[2])}, bytes(4)), r"'a' has 4 bytes at 0, F32 \(2,\) takes 8"),
        (make({"a": entry(shape=[1 << 62, 1 << 62])}, bytes(4)), "'a' is described as .*4611686018427387904"),
        (make({"a": entry(shape=[10**4000, 10**4000])}, bytes(4)), "'a' is described as|is not JSON"),
        (make({"a": entry(shape=[1] * 65)}, bytes(4)), "'a' is described as"),
        (make({"a": entry(shape=[1 << 63, 0])}, b""), "'a' is described as"),
        (make({"a": entry(begin=4, end=0)}, bytes(4)), "'a' has -4 bytes at 4"),
        (make({"a": entry()}, bytes(3)), "'a' ends at byte 4 of the data, the file at 3"),
        (make({"a": entry()}, bytes(5)), "'a' ends at byte 4 of the data, the file at 5"),
        (make({"a": entry(begin=4, end=8)}, bytes(8)), "'a' begins at byte 4 of the data, the header ends at 0"),
        (make({"a": entry(), "b": entry()}, bytes(4)), "'b' begins at byte 0 of the data, 'a' ends at 4"),
        (make({"a": entry(), "b": entry(begin=2, end=6)}, bytes(6)), "'b' begins at byte 2 of the data, 'a' ends at 4"),
    ],
)
def test_safetensors_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ZooError, match=rf"weights\.safetensors.*{message}"):
        load(content, "weights.safetensors")


@given(data=st.data())
@examples(200)
def test_a_garbled_safetensors_header_is_an_error_or_what_the_library_reads(data: st.DataObject) -> None:
    content = bytearray(saved(save_safetensors, {"a": SAMPLE["fc.bias"], "b": np.arange(3)}, {"model": "sample"}))
    header = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.integers(0, header - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        found = read_all(load(bytes(content), "weights.safetensors"))
    except ZooError:
        return
    expected = {
        name: array.astype("f4" if array.dtype.kind == "f" else array.dtype)
        for name, array in library.load(bytes(content)).items()
    }
    assert found == values(expected)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.array([None])])
def test_safetensors_refuse_dtypes_they_do_not_have(array: np.ndarray) -> None:
    with pytest.raises(ZooError, match="'a' is .*cannot hold"):
        saved(save_safetensors, {"a": array})


def test_safetensors_refuse_metadata_that_are_not_strings() -> None:
    with pytest.raises(ZooError, match="strings"):
        saved(save_safetensors, {}, {"classes": 10})


# Both formats


@pytest.mark.parametrize("save", [save_wts, save_safetensors])
def test_a_failed_write_leaves_what_was_there(save: Callable[..., None], tmp_path: Path) -> None:
    class Broken:
        shape, dtype = (1,), np.dtype(np.float32)

        def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
            raise RuntimeError("no values")

    path = tmp_path / "sub" / "weights"
    save(path, SAMPLE)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="no values"):
        save(path, {**SAMPLE, "broken": Broken()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("save", [save_wts, save_safetensors])
def test_a_place_that_cannot_be_written_is_named(save: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot write .*weights"):
        save(tmp_path / "file" / "weights", SAMPLE)


def sources() -> list[Weights]:
    return [load(saved(save_wts, SAMPLE)), load(saved(save_safetensors, SAMPLE)), from_arrays(SAMPLE)]


@pytest.mark.parametrize("weights", sources(), ids=["wts", "safetensors", "arrays"])
def test_reading_needs_the_name_and_the_shape(weights: Weights) -> None:
    with pytest.raises(ZooError, match=r"has no 'conv.weigth' \(3, 2, 2, 1\); closest: conv.weight"):
        weights.read("conv.weigth", (3, 2, 2, 1))
    with pytest.raises(ZooError, match="has no 'fc'"):
        weights.size("fc")
    with pytest.raises(ZooError, match="has no 'fc'"):
        weights.shape("fc")
    with pytest.raises(ZooError, match=r"'conv.weight'.*12|\(3, 2, 2, 1\) in .*, the definition says \(3, 2, 2, 2\)"):
        weights.read("conv.weight", (3, 2, 2, 2))
    if weights.shape("conv.weight") is not None:
        with pytest.raises(
            ZooError, match=r"'conv.weight' is \(3, 2, 2, 1\) in .*, the definition says \(2, 3, 2, 1\)"
        ):
            weights.read("conv.weight", (2, 3, 2, 1))


def test_a_wts_error_has_the_count_and_the_shape() -> None:
    with pytest.raises(
        ZooError, match=r"'conv.weight' has 12 values in .*\.wts, the definition says \(5, 2\), which takes 10$"
    ):
        load(one_space(SAMPLE)).read("conv.weight", (5, 2))


@pytest.mark.parametrize("weights", sources(), ids=["wts", "safetensors", "arrays"])
def test_arrays_come_read_only_and_contiguous(weights: Weights) -> None:
    for name, array in SAMPLE.items():
        read = weights.read(name, list(array.shape))
        assert weights.size(name) == array.size
        assert read.dtype == np.float32
        assert read.flags.c_contiguous
        assert not read.flags.writeable
        assert read.tobytes() == array.tobytes()
        assert array.flags.writeable, "the caller's own array must not change"


@pytest.mark.parametrize("weights", sources(), ids=["wts", "safetensors", "arrays"])
def test_what_is_not_read_is_unused(weights: Weights) -> None:
    assert weights.unused() == sorted(SAMPLE)
    assert "conv.weight" in weights
    assert "fc.weight" not in weights
    assert weights.unused() == sorted(SAMPLE), "asking is not reading"
    with pytest.raises(ZooError):
        weights.read("conv.weight", (1,))
    assert weights.unused() == sorted(SAMPLE), "a failed read is not a read"
    weights.read("conv.weight", (3, 2, 2, 1))
    assert weights.unused() == ["fc.bias", "none", "scalar", "special"]
    assert weights.unused(["fc.*", "s*r"]) == ["none", "special"]
    assert weights.unused("fc.*") == ["none", "scalar", "special"]
    assert weights.unused(lambda name: name.startswith("s")) == ["fc.bias", "none"]


def test_batch_counters_never_count() -> None:
    assert from_arrays({"bn.num_batches_tracked": np.array(1), "bn.weight": np.ones(1)}).unused() == ["bn.weight"]


def test_arrays_of_any_order_and_float_width() -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3).T
    weights = from_arrays({"a": array, "n": np.array([1, 2])}, name="test", metadata={"model": "x"})
    read = weights.read("a", (3, 2))
    assert read.flags.c_contiguous
    assert read.dtype == np.float32
    assert np.array_equal(read, array)
    assert weights.read("n", (2,)).dtype == np.int64
    assert (weights.name, weights.metadata, weights.generated) == ("test", {"model": "x"}, False)


def test_bfloat16_arrays_become_float32() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    read = from_arrays({"a": np.array([1.5, -2], ml_dtypes.bfloat16)}).read("a", (2,))
    assert read.dtype == np.float32
    assert read.tolist() == [1.5, -2]


# Digests


def test_the_digest_of_a_file_is_its_sha256() -> None:
    for content in (one_space(SAMPLE), saved(save_safetensors, SAMPLE)):
        assert load(content).digest() == hashlib.sha256(content).hexdigest()


def test_the_digest_of_arrays_changes_with_all_that_matters() -> None:
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    others: list[Arrays] = [
        {"a": base["a"]},
        {"a": base["a"], "c": base["b"]},
        {"a": base["b"], "b": base["a"]},
        {**base, "a": base["a"].T},
        {**base, "a": base["a"].view(np.int32)},
        {**base, "a": -base["a"]},
    ]
    digests = [from_arrays(arrays).digest() for arrays in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert from_arrays(dict(reversed(base.items()))).digest() == digests[0]


def test_equal_safetensors_are_equal_files() -> None:
    first = saved(save_safetensors, SAMPLE, {str(i): "x" for i in range(9)})
    second = saved(save_safetensors, dict(reversed(SAMPLE.items())), {str(i): "x" for i in reversed(range(9))})
    assert first == second


# Random weights


@given(
    requests=st.lists(st.tuples(NAMES, SHAPES), unique_by=lambda request: request[0], min_size=2), seed=st.integers(0)
)
@examples(30)
def test_random_weights_do_not_depend_on_the_order(requests: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    forward, backward = RandomWeights(seed), RandomWeights(seed)
    found = {name: forward.read(name, shape).tobytes() for name, shape in requests}
    assert {name: backward.read(name, shape).tobytes() for name, shape in reversed(requests)} == found


def test_random_weights_are_these() -> None:
    """In any process, on any machine, with any version of numpy."""
    read = RandomWeights(7).read("layer1.0.conv1.weight", (2, 1, 1, 2))
    assert read.ravel().tolist() == [1.0981460809707642, -0.031130433082580566, -0.6363602876663208, 0.288249135017395]


def test_random_weights_differ_by_seed_and_name() -> None:
    arrays = [RandomWeights(seed).read(name, (64,)).tobytes() for seed in (0, 1) for name in ("a", "b")]
    assert len(set(arrays)) == 4


def test_random_weights_are_sane() -> None:
    weights = RandomWeights(0)
    kernel = weights.read("conv.weight", (256, 64, 3, 3))
    assert kernel.dtype == np.float32
    assert kernel.std() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.01)
    assert abs(kernel.mean()) < 1e-3
    for name, low, high in (
        ("weight", 0.8, 1.2),
        ("bias", -0.1, 0.1),
        ("running_mean", -0.1, 0.1),
        ("running_var", 0.5, 1.5),
    ):
        values = weights.read(f"bn.{name}", (10_000,))
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high


def test_random_weights_hold_everything_and_miss_nothing() -> None:
    weights = RandomWeights(3)
    assert weights.generated
    assert weights.name == "random:3"
    assert "anything" in weights
    assert weights.shape("anything") is None
    assert weights.names() == weights.unused() == []
    with pytest.raises(ZooError, match="random:3 .*'fc.bias'"):
        weights.size("fc.bias")
    read = weights.read("scalar", ())
    assert read.shape == ()
    assert not read.flags.writeable
    assert weights.read("none", (0, 3)).shape == (0, 3)
    assert weights.digest() == RandomWeights(3).digest() != RandomWeights(4).digest()


def test_a_checkpoint_that_is_cut_short_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"PK")
    with pytest.raises(ZooError, match=r"best\.pt is no checkpoint of PyTorch: it begins with b'PK'; it may be cut"):
        load_weights(tmp_path / "best.pt")


def test_parse_weights(tmp_path: Path) -> None:
    assert parse_weights("random").name == "random:0"
    assert parse_weights("random:7").name == "random:7"
    save_wts(tmp_path / "a.wts", SAMPLE)
    assert parse_weights(str(tmp_path / "a.wts")).names() == list(SAMPLE)
    with pytest.raises(ZooError, match="'random:x' has no number"):
        parse_weights("random:x")
    with pytest.raises(ZooError, match="zoo.gen_wts resnet18"):
        parse_weights(str(tmp_path / "b.wts"), model="resnet18")
