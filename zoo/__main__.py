"""`zoo` and `python -m zoo`: the commands."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo import __version__, bench, build, cache, calibrate, check, export, gen_wts, list, profile, run
from zoo.cli import fail
from zoo.errors import closest
from zoo.plugins import __main__ as plugins
from zoo.verify import __main__ as verify

COMMANDS = {
    "list": list,
    "build": build,
    "run": run,
    "verify": verify,
    "export": export,
    "gen_wts": gen_wts,
    "calibrate": calibrate,
    "bench": bench,
    "profile": profile,
    "plugins": plugins,
    "cache": cache,
    "check": check,
}


def main() -> None:
    """`zoo COMMAND …` is `python -m zoo.COMMAND …`; without a command, prints each with the first line of its help."""
    program = "zoo" if Path(sys.argv[0]).stem == "zoo" else "python -m zoo"
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        COMMANDS[name].main(f"{program} {name}")
    elif name == "--version":
        print(f"tensorrt-zoo {__version__}")
    elif name in ("--help", "-h"):
        print(f"usage: {program} COMMAND [OPTIONS]; each has --help, and {program} --version says this version\n")
        for word, command in COMMANDS.items():
            print(f"  {word:9} {(command.run.__doc__ or '').splitlines()[0]}")
    else:
        fail(f"there is no command '{name}'{closest(name, COMMANDS)}; {program} --help lists them")


if __name__ == "__main__":
    main()
