"""The shell and the table in abi.h against real libraries of TensorRT, without a GPU (scripts/test.sh fetches them).

The registry of each takes the shell's creator, makes plugins with it and reads them back. From 10 on NVIDIA's Python
bindings call our objects through NVIDIA's own declarations of their classes; those of 8.6 are for Python 3.10. What
TensorRT calls only while it builds and runs an engine is held by the GPU tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from plugin_host import compile_driver

from zoo.plugins.core import shell

LIBRARIES = Path(sys.prefix) / "tensorrt-lean"
VERSIONS = {"8.6": 8600, "10.16": 101601, "11.4": 110400}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The driver of the tests and the shell, compiled."""
    folder = tmp_path_factory.mktemp("shell")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        return compile_driver(folder), shell.build()


@pytest.mark.parametrize("order", ["after", "before", "library"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_real_library_takes_the_shell(version: str, order: str, libraries: tuple[Path, Path]) -> None:
    folder = LIBRARIES / version
    assert folder.is_dir(), f"there is no TensorRT {version} in {folder}: bash scripts/test.sh fetches it"
    script = Path(__file__).with_name("plugin_real.py")
    result = subprocess.run(
        [sys.executable, script, folder, *libraries, order], capture_output=True, text=True, timeout=60, check=False
    )
    alone = version == "8.6" and sys.version_info[:2] != (3, 10)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{VERSIONS[version]} {'alone' if alone else 'with bindings'}\n"
    assert "the engine holds it as 'zooop-0', this shell reads zooop-1; rebuild the engine" in result.stderr
