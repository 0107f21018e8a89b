"""Environments for libraries of references that cannot share ours: an older NumPy, a package of the same name.

An environment is a folder of pinned packages that the process of the library finds before all others. Interpreter,
PyTorch and whatever else it does not pin are ours, so that it takes seconds to make and megabytes to keep.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import locked_folder

_ROOT = Path(__file__).resolve().parents[2]
_SIGN = "requirements.txt"  # is there once all packages are, and says which


@dataclass(frozen=True)
class Environment:
    """The packages of one library: `requirements` are exact versions as pip reads them, with all that they depend on
    and ours lacks.

    They lie in $ZOO_REFERENCES/NAME, by default in the folder "zoo-references" of the interpreter's environment.
    """

    name: str
    requirements: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the packages are."""
        root = os.environ.get("ZOO_REFERENCES") or Path(sys.prefix) / "zoo-references"
        return Path(root).absolute() / self.name

    @property
    def ready(self) -> bool:
        """Whether these packages in these versions are there."""
        try:
            return (self.folder / _SIGN).read_text(encoding="utf-8") == self._sign
        except (OSError, UnicodeDecodeError):
            return False

    @property
    def entered(self) -> bool:
        """Whether this process is one that finds the packages."""
        return str(self.folder) in sys.path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a process that finds the packages, and then what this one finds."""
        inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), str(_ROOT), *inherited])}

    @property
    def _sign(self) -> str:
        return "".join(f"{requirement}\n" for requirement in self.requirements)

    def make(self) -> None:
        """Installs the packages unless they are there. They are whole or not there, whatever interrupts this.

        Raises ZooError with pip's words when it fails.
        """
        root = self.folder.parent
        try:
            root.mkdir(parents=True, exist_ok=True)
            with locked_folder(root):
                if self.ready:
                    return
                with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as temporary:
                    new = Path(temporary) / self.name
                    self._install(new)
                    (new / _SIGN).write_text(self._sign, encoding="utf-8")
                    shutil.rmtree(self.folder, ignore_errors=True)  # of other versions
                    new.rename(self.folder)
        except OSError as error:
            raise ZooError(
                f"the environment of {self.name} cannot be made in {root}: {error.strerror}; "
                "set ZOO_REFERENCES to a folder that can be written"
            ) from None

    def _install(self, target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--target", target, *self.requirements], capture_output=True, text=True)
        if done.returncode:
            words = done.stderr.strip().splitlines()
            raise ZooError(
                f"the environment of {self.name} cannot be made: pip ended with status {done.returncode}: "
                f"{words[-1] if words else 'it said nothing'}"
            )
