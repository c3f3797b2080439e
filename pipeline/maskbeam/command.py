"""The command `maskbeam`: one name for the job and for the commands of `python -m model`."""

import sys
from collections.abc import Callable, Sequence
from importlib import metadata

_USAGE = """usage: maskbeam COMMAND [OPTION …]

Segments picture archives offline, and trains the models that do it.

  maskbeam run …       the job: masks, areas and scores of an archive (python -m pipeline)
  maskbeam train …     train a network on pictures with masks (python -m model train)
  maskbeam export …    write a model folder's exports again
  maskbeam predict …   segment a few pictures: masks and overlays
  maskbeam sample …    draw the embedded sample data set
  maskbeam --version   the version

`maskbeam COMMAND --help` explains a command's options.
"""
_MODEL_COMMANDS = ("train", "export", "predict", "sample")
_UNUSABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the arguments after `maskbeam`; None for the process's own.

    Returns:
        The exit status of the command; 2 for an unknown one.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if command == "--version":
        print(f"maskbeam {metadata.version('maskbeam')}")
        return 0
    run = _command(command, rest)
    if run is None:
        print(f"maskbeam: unknown command {command!r}; see maskbeam --help", file=sys.stderr)
        return _UNUSABLE
    return run()


def _command(command: str, rest: list[str]) -> Callable[[], int] | None:
    # Each is imported on use: the job doesn't need the training packages, and vice versa.
    if command == "run":
        from pipeline.__main__ import run

        return lambda: run(rest)
    if command in _MODEL_COMMANDS:
        from model.cli import main as run_model

        return lambda: run_model([command, *rest])
    return None


if __name__ == "__main__":
    sys.exit(main())
