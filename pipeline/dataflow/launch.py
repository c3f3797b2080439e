"""Starts the job from a Flex Template: Google's launcher runs this file with every parameter as `--name=value`.

Templates have no flags, repeated options or dates, so parameters have a form for them: `--retry_failed=true`, several
sources separated by `|`, and `{date}` in `--output`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime

from pipeline.app.launcher import UNUSABLE
from pipeline.app.launcher import main as run
from pipeline.app.parser import command_parser

DATE_PLACE = "{date}"
IMAGE_VARIABLE = "MASKBEAM_IMAGE"
SEVERAL = "|"
_TRUTHS = {"true": True, "false": False}


def main(arguments: Sequence[str]) -> int:
    """Submits the job and returns at once.

    Args:
        arguments: as Google's launcher passes them.

    Returns:
        The exit status, as that of `python -m pipeline`.
    """
    try:
        translated = translate(arguments, datetime.now(UTC).date(), os.environ.get(IMAGE_VARIABLE))
    except ValueError as error:
        print(f"maskbeam: {error}", file=sys.stderr)
        return UNUSABLE
    return run(translated)


def translate(arguments: Sequence[str], today: date, image: str | None = None) -> list[str]:
    """Translates a template's parameters to the options of `python -m pipeline`.

    Args:
        arguments: `--name=value` each.
        today: replaces `{date}` in `--output`: a second trigger on the same day finds the first one's results and has
            nothing left to do, while the next day's has another output.
        image: the image for the workers, unless the arguments name one.

    Returns:
        The command line.

    Raises:
        ValueError: a flag's value is neither true nor false.
    """
    actions = {option: action for action in command_parser()._actions for option in action.option_strings}
    translated: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        action = actions.get(name)
        if action is not None and not value:
            continue  # an optional parameter that was left empty
        if isinstance(action, argparse._StoreTrueAction):
            if value.lower() not in _TRUTHS:
                raise ValueError(f"{name}={value}: neither true nor false")
            translated += [name] if _TRUTHS[value.lower()] else []
        elif isinstance(action, argparse._AppendAction):
            translated += [f"{name}={part.strip()}" for part in value.split(SEVERAL)]
        elif name == "--output":
            translated.append(f"{name}={value.replace(DATE_PLACE, today.isoformat())}")
        else:
            translated.append(argument)
    given = {argument.partition("=")[0] for argument in translated}
    if "--runner" not in given:
        translated.append("--runner=DataflowRunner")
    if image and "--sdk_container_image" not in given:
        # The launcher's image has everything that a worker needs: nothing is installed when a worker starts.
        translated.append(f"--sdk_container_image={image}")
    return translated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
