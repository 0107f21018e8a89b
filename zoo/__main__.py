"""`zoo` and `python -m zoo`: the commands."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo import __version__
from zoo.cli import fail
from zoo.discovery import commands
from zoo.errors import closest


def main() -> None:
    """`zoo COMMAND …` is `python -m zoo.COMMAND …`; without a command, prints each with the first line of its help."""
    program = "zoo" if Path(sys.argv[0]).stem == "zoo" else "python -m zoo"
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"tensorrt-zoo {__version__}")
        return
    found = commands()
    if name in found:
        del sys.argv[1]
        found[name].main(f"{program} {name}")
    elif name in ("--help", "-h"):
        print(f"usage: {program} COMMAND [OPTIONS]; each has --help, and {program} --version says this version\n")
        for word, command in found.items():
            print(f"  {word:9} {(command.run.__doc__ or '').splitlines()[0]}")
    else:
        fail(f"there is no command '{name}'{closest(name, found)}; {program} --help lists them")


if __name__ == "__main__":
    main()
