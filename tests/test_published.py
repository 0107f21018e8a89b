"""Published weights from a server on this machine: what is cut off goes on, and what is another file is never used."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.errors import ZooError
from zoo.labels import known_labels
from zoo.verify import references
from zoo.verify.references import Published
from zoo.weights.published import fetch

CONTENT = bytes(range(256)) * 4096
HASH = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.state.content` at any path but a few."""

    def do_GET(self) -> None:
        state = self.server.state
        state.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/moved.pt":
            self.send_response(302)
            self.send_header("Location", "/file.pt")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/gone.pt":
            self.send_error(404)
            return
        start, content = 0, state.content
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range") == state.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", state.tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + state.cut] if state.cut else content[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.delenv("ZOO_OFFLINE")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        state = SimpleNamespace(content=CONTENT, tag='"one"', cut=0, requests=[], url="")
        found.state, state.url = state, f"http://127.0.0.1:{found.server_port}"
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield state
        found.shutdown()
        thread.join()


def test_a_file_is_downloaded_once_and_said(
    tmp_path: Path, server: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        path = fetch(f"{server.url}/file.pt", HASH[:8], len(CONTENT), tmp_path)
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert f"downloading {server.url}/file.pt (1.0 MB)" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"file.pt", "file.lock"}


def test_a_download_needs_no_stderr(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services close it; what is said then must not go to stdout instead."""
    from zoo.cli import note, progress

    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", said)
    monkeypatch.setattr(sys, "stderr", None)
    with progress() as say:
        say("downloading")
        note("a note")
        assert fetch(f"{server.url}/file.pt", HASH, len(CONTENT), tmp_path).read_bytes() == CONTENT
    assert not said.getvalue()


def test_files_of_one_name_are_kept_apart(tmp_path: Path, server: SimpleNamespace) -> None:
    first = fetch(f"{server.url}/a/model.safetensors", folder=tmp_path, name="a.safetensors")
    server.content = CONTENT[::-1]
    second = fetch(f"{server.url}/b/model.safetensors", folder=tmp_path, name="b.safetensors")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, CONTENT[::-1])


def test_a_redirect_is_followed(tmp_path: Path, server: SimpleNamespace) -> None:
    assert fetch(f"{server.url}/moved.pt", HASH, folder=tmp_path).read_bytes() == CONTENT


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path, server: SimpleNamespace) -> None:
    server.cut = 300_000
    with pytest.raises(ZooError, match="file.pt could not be downloaded .*300,000 of 1,048,576.*start again"):
        fetch(f"{server.url}/file.pt", folder=tmp_path)
    assert not (tmp_path / "file.pt").exists()
    server.cut = 0
    assert fetch(f"{server.url}/file.pt", folder=tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-"]


def test_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path, server: SimpleNamespace) -> None:
    server.cut = 300_000
    with pytest.raises(ZooError):
        fetch(f"{server.url}/file.pt", folder=tmp_path)
    server.cut, server.tag, server.content = 0, '"two"', CONTENT[::-1]
    assert fetch(f"{server.url}/file.pt", folder=tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("sha256", "size", "words"),
    [("0123abcd", None, "0123abcd is published: it is damaged or replaced"), (HASH, 7, "bytes, 7 are published")],
)
def test_another_file_is_never_used(
    tmp_path: Path, server: SimpleNamespace, sha256: str, size: int | None, words: str
) -> None:
    with pytest.raises(ZooError, match=words):
        fetch(f"{server.url}/file.pt", sha256, size, tmp_path)
    assert not (tmp_path / "file.pt").exists()
    assert fetch(f"{server.url}/file.pt", HASH, len(CONTENT), tmp_path).read_bytes() == CONTENT  # from the beginning
    assert server.requests[-1] == ("/file.pt", None)


def test_a_file_of_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "a file.pth").write_bytes(CONTENT)
    url = (tmp_path / "a file.pth").as_uri()
    assert fetch(url, HASH) == tmp_path / "a file.pth"
    with pytest.raises(ZooError, match="damaged or replaced"):
        fetch(url, "0123")
    assert (tmp_path / "a file.pth").exists()


def test_what_the_server_answers_is_said(tmp_path: Path, server: SimpleNamespace) -> None:
    with pytest.raises(ZooError, match="gone.pt could not be downloaded .the server answers 404 Not Found"):
        fetch(f"{server.url}/gone.pt", folder=tmp_path)


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match=r"could not be downloaded \(ZOO_OFFLINE is set\)"):
        fetch("http://127.0.0.1:9/file.pt", folder=tmp_path)
    monkeypatch.delenv("ZOO_OFFLINE")
    with pytest.raises(ZooError, match=r"file.pt could not be downloaded \(Connection refused\)"):
        fetch("http://127.0.0.1:9/file.pt", folder=tmp_path)


def test_a_network_is_loaded_with_its_published_weights(
    tmp_path: Path, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = references.load_reference("torchvision:resnet18").module
    torch.save(module.state_dict(), tmp_path / "r.pth")
    server.content = (tmp_path / "r.pth").read_bytes()
    known = Published(
        f"{server.url}/resnet18.pth", None, len(server.content), "BSD-3-Clause", "torchvision", "imagenet"
    )
    monkeypatch.setattr(references, "published", lambda source: known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with zoo.load("resnet18", device="cpu", size=(64, 64)) as session:
        assert session.labels is not None and session.labels[0] == "tench"
        assert session.weights == str(tmp_path / "zoo" / "weights" / "resnet18.pth")


def test_published_files_are_those_of_torchvisions_own_table() -> None:
    from zoo.verify.references.torchvision import LIBRARY
    from zoo.verify.torchvision_shim import import_torchvision

    models = import_torchvision().models
    for name in zoo.list_models():
        prefix, _, upstream = zoo.get_model(name).reference.partition(":")
        if prefix == "torchvision":
            known, theirs = LIBRARY.published(upstream), models.get_model_weights(upstream)
            weights = theirs.IMAGENET1K_SWAG_LINEAR_V1 if upstream == "vit_h_14" else next(iter(theirs))
            assert (known.url, known.origin.split()[-1]) == (weights.url, weights.name)
            categories = [label.strip("_") for label in weights.meta["categories"]]
            assert (
                len(known_labels(known.labels)) == len(categories) and known_labels(known.labels)[15] == categories[15]
            )


# tests/published.py


def test_published_weights_are_tried_and_mistakes_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import published

    def run(*names: str) -> tuple[object, list[str]]:
        monkeypatch.setattr("sys.argv", ["published.py", *names, "--out", str(tmp_path / "seen.jsonl")])
        with pytest.raises(SystemExit) as stopped:
            published.main()
        return stopped.value.code, capsys.readouterr().out.splitlines()

    code, (tried, absent, counts) = run("mtcnn_pnet", "yolov8n")
    assert (code, tried, counts) == (0, "ok     mtcnn_pnet: ", "0 failed, 1 absent")
    assert absent.startswith("absent yolov8n: ") and absent.endswith("could not be downloaded (ZOO_OFFLINE is set)")
    assert run("mtcnn_pnet") == (0, ["0 failed, 0 absent"])  # what passed is not tried again

    def refuse(*_: object, **__: object) -> None:
        raise ZooError("they do not fit")

    monkeypatch.setattr(published, "gen_wts", refuse)
    assert run("mtcnn_rnet") == (1, ["FAILED mtcnn_rnet: they do not fit", "1 failed, 0 absent"])


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["espresso", "consomme"], ("cup", "espresso"), True),
        (["a", "b", "c", "d", "e", "cup"], ("cup",), False),  # the sixth
        (["volcano"], ("cup", "espresso"), False),
        (["face"], (), True),
        (["face", "face"], (), False),
    ],
)
def test_answers_are_judged(labels: list[str], names: tuple[str, ...], expected: bool) -> None:
    import published

    assert published.right(SimpleNamespace(labels=labels, scores=[0.9] * len(labels)), names) is expected
