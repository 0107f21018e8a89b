"""Files are written whole or not at all, and what lies in their place is respected."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.files import cache_folder, checked_destination, replacing


def write(path: Path, data: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(data)


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path)
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    for data in (b"first", b"second"):
        write(link, data)
        assert link.is_symlink() and (tmp_path / "there" / "file").read_bytes() == data


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert found == [b"new"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_failed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("text", ["", ".", "/", "folder", "folder/", "nul\0byte"])
def test_what_cannot_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZooError, match="cannot write"):
        checked_destination(text)
    with pytest.raises(ZooError, match="cannot write"), replacing(text):
        raise AssertionError("the block must not begin")


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ZooError, match="cannot write"):
        write(tmp_path / "a")


def test_a_long_name_has_a_short_temporary(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 250))
    assert (tmp_path / ("n" * 250)).read_bytes() == b"new"


def test_temporaries_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".aaaa.zoo-part", tmp_path / ".bbbb.zoo-part"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    write(tmp_path / "file")
    assert not old.exists() and fresh.exists()


def test_no_home_for_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    with pytest.raises(ZooError, match="set XDG_CACHE_HOME to a folder"):
        cache_folder()
