"""The `replica` command; also `python -m libreplica`."""
import os
import sys

from . import command_path


def main() -> None:
    os.execv(command_path(), [command_path()] + sys.argv[1:])


if __name__ == "__main__":
    main()
