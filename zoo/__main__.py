"""`python -m zoo`: the commands."""

from __future__ import annotations

from zoo import bench, build, cache, export, list, profile, run
from zoo.plugins import __main__ as plugins
from zoo.verify import __main__ as verify

COMMANDS = {
    "list": list,
    "build": build,
    "run": run,
    "verify": verify,
    "export": export,
    "bench": bench,
    "profile": profile,
    "cache": cache,
    "plugins": plugins,
}


def main() -> None:
    """Prints every command with the first line of its help."""
    print("usage: python -m zoo.COMMAND [OPTIONS]; each has --help\n")
    for name, command in COMMANDS.items():
        print(f"  {name:8} {(command.run.__doc__ or '').splitlines()[0]}")


if __name__ == "__main__":
    main()
