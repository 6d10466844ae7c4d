"""The command `jaxup`, also as `python -m jaxup`, in a process of its own."""

import sys

from jaxup._heap import start_with_kept_heap


def run() -> int:
    """Run the command as a program, and return its exit status."""
    start_with_kept_heap()
    from jaxup.cli.command import main  # takes longer than to start anew

    return main()


if __name__ == "__main__":
    sys.exit(run())
