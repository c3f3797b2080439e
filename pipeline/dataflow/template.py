"""The Flex Template: its metadata and container spec, generated from the options.

    python -m pipeline.dataflow.template --image IMAGE [--service_account EMAIL] > template.json

The file it prints is the container spec that `flexTemplates.launch` takes; the metadata is a part of it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.app.parser import command_parser
from pipeline.dataflow.launch import DATE_PLACE, SEVERAL

# They print to the user's terminal.
_NOT_IN_A_TEMPLATE = ("help", "plan", "plan_workers", "plan_price_per_hour")
_WHOLE_NUMBER, _NUMBER, _FLAG = r"[0-9]+", r"[0-9.]+", r"true|false"
_RAW_VALUE = r"-?[0-9]+|#[0-9a-fA-F]{6}"
# A process and an engine thread per core, 4 GB for each; a launch may override it.
MACHINE_TYPE = "n2-standard-4"
MAX_WORKERS = 20


def metadata() -> dict[str, Any]:
    """The template's name and parameters, in the order of `python -m pipeline --help`.

    Returns:
        The content of a Flex Template's `metadata.json`.
    """
    parameters = [
        _parameter(action)
        for action in command_parser()._actions
        if action.dest not in _NOT_IN_A_TEMPLATE and action.help is not argparse.SUPPRESS
    ]
    parameters.append(
        {
            "name": "resource_hints",
            "label": "Accelerator",
            "helpText": "accelerator of the inference step, as"
            " accelerator=type:nvidia-l4;count:1;install-nvidia-driver; needs the GPU image and backend tensorflow",
            "isOptional": True,
            "paramType": "TEXT",
            "regexes": [r"^accelerator=\S+$"],
        }
    )
    return {
        "name": "maskbeam",
        "description": command_parser().description,
        "parameters": parameters,
    }


def container_spec(image: str, service_account: str | None = None) -> dict[str, Any]:
    """The template file that a launch reads from the bucket.

    Args:
        image: the image of the launcher and the workers.
        service_account: the account of both; None for the project's default.

    Returns:
        The content of the template file.
    """
    environment: dict[str, Any] = {"machineType": MACHINE_TYPE, "maxWorkers": MAX_WORKERS, "sdkContainerImage": image}
    if service_account:
        environment["serviceAccountEmail"] = service_account
    return {
        "image": image,
        "sdkInfo": {"language": "PYTHON"},
        "metadata": metadata(),
        "defaultEnvironment": environment,
    }


def _parameter(action: argparse.Action) -> dict[str, Any]:
    text = " ".join((action.help or "").replace("%%", "%").split())
    text = text.replace("%(default)s", str(action.default).lower() if action.const else str(action.default))
    if isinstance(action, argparse._AppendAction):
        text += f"; separate several by {SEVERAL}"
    if action.dest == "output":
        text += f"; {DATE_PLACE} is replaced by the day of the launch"
    return {
        "name": action.dest,
        "label": action.dest.replace("_", " ").capitalize(),
        "helpText": text,
        "isOptional": not action.required,
        "paramType": "TEXT",
        "regexes": [_regex(action)],
    }


def _regex(action: argparse.Action) -> str:
    """The pattern of a value; the launcher checks the rest."""
    if isinstance(action, argparse._StoreTrueAction):
        return f"^({_FLAG})$"
    if action.choices:
        return f"^({'|'.join(map(str, action.choices))})$"
    if action.dest == "ignore_label":
        return f"^({_RAW_VALUE})$"
    if isinstance(action.default, int) or action.metavar == "N":
        return f"^{_WHOLE_NUMBER}$"
    if isinstance(action.default, float):
        return f"^{_NUMBER}$"
    return r"^.+$"


def main(arguments: Sequence[str]) -> int:
    """Prints the template file.

    Args:
        arguments: without the program's name.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.dataflow.template", allow_abbrev=False)
    parser.add_argument("--image", required=True)
    parser.add_argument("--service_account")
    values = parser.parse_args(arguments)
    json.dump(container_spec(values.image, values.service_account), sys.stdout, indent=2, ensure_ascii=False)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
