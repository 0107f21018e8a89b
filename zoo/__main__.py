"""`python -m zoo`: the commands."""

from __future__ import annotations

import importlib

COMMANDS = ("list", "build", "run", "verify", "export", "bench", "profile")


def main() -> None:
    """Prints every command with the first line of its help."""
    print("usage: python -m zoo.COMMAND [OPTIONS]; each has --help\n")
    for name in COMMANDS:
        module = importlib.import_module(f"zoo.{name}.__main__" if name == "verify" else f"zoo.{name}")
        print(f"  {name:8} {(module.run.__doc__ or '').splitlines()[0]}")


if __name__ == "__main__":
    main()
