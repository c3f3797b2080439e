"""Options: parsed strictly, explained in full, and a mistake said in one line before anything slow is imported."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.app import job_options as module
from pipeline.app.job_options import LATER_OPTIONS, JobOptions, parse_options
from pipeline.app.launcher import main
from pipeline.core.addresses import public_address
from pipeline.core.errors import OptionError

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ["--input", "in", "--model", "m", "--output", "out"]


def refusal(*arguments: str) -> str:
    with pytest.raises(OptionError) as caught:
        parse_options(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults() -> None:
    options = parse_options(NEEDED)
    assert options.input == ("in",)
    assert options.ground_truth == ()
    assert (options.mode, options.backend, options.batch_size, options.threads) == ("auto", "auto", 0, 0)
    assert (options.label_map, options.ignore_label, options.max_failure_ratio) == (None, None, 0.0)
    assert options.max_pixels > 10**8
    assert options.beam_args == ()


def test_all_values_arrive() -> None:
    options = parse_options(
        [
            *("--input", "a", "--input=b", "--ground_truth", "c", "--ground_truth", "d", "--model", "m"),
            *("--output", "o", "--label_map", "1=0,2=1", "--ignore_label", "255", "--mode", "tile"),
            *("--tile_overlap", "0.5", "--tta", "d4"),
            *("--max_pixels", "10", "--max_failure_ratio", "0.25", "--backend", "litert", "--batch_size", "8"),
            *("--threads", "2", "--direct_num_workers", "2", "--direct_running_mode=multi_threading"),
        ]
    )
    assert (options.input, options.ground_truth) == (("a", "b"), ("c", "d"))
    assert (options.label_map, options.ignore_label, options.mode) == ("1=0,2=1", 255, "tile")
    assert (options.tile_overlap, options.tta) == (0.5, "d4")
    assert (options.max_pixels, options.max_failure_ratio, options.backend) == (10, 0.25, "litert")
    assert (options.batch_size, options.threads) == (8, 2)
    assert options.beam_args == ("--direct_num_workers", "2", "--direct_running_mode=multi_threading")


@pytest.mark.parametrize("missing", ["--input", "--model", "--output"])
def test_what_is_needed_is_named(missing: str) -> None:
    place = NEEDED.index(missing)
    assert missing in refusal(*NEEDED[:place], *NEEDED[place + 2 :])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bach_size", "3"], "unknown option --bach_size; did you mean --batch_size? python"),
        (["--batch-size", "3"], "unknown option --batch-size; did you mean --batch_size? python"),
        (["--label_maps=1=0"], "unknown option --label_maps; did you mean --label_map? python"),
        (["--direct_num_worker", "3"], "unknown option --direct_num_worker; did you mean --direct_num_workers? python"),
        (["--s3_secret_key=x"], "unknown option --s3_secret_key; did you mean --s3_secret_access_key? python"),
        (["pictures"], "unknown option pictures; python"),
        (["--Threads", "1"], "unknown option --Threads; did you mean --threads? python"),
        (["--zzz", "1"], "unknown option --zzz; python"),
    ],
)
def test_a_misspelt_option_is_an_error(arguments: list[str], said: str) -> None:
    assert refusal(*NEEDED, *arguments).startswith(said)


@pytest.mark.parametrize("needed", ["--input", "--model", "--output"])
@pytest.mark.parametrize(
    "misspell", [lambda name: name[:-2] + name[:-3:-1], lambda name: name[:3] + name[4:], str.upper]
)
def test_a_misspelt_option_that_is_needed_is_named(needed: str, misspell: Callable[[str], str]) -> None:
    written = misspell(needed)
    arguments = [written if argument == needed else argument for argument in NEEDED]
    assert refusal(*arguments).startswith(f"unknown option {written}; did you mean {needed}? ")
    assert refusal(*(f"{a}=x" if a == written else a for a in arguments)).startswith(f"unknown option {written}; ")


@pytest.mark.parametrize("short", ["--inp", "--in", "--batch", "--thread", "--runn", "--direct_running"])
def test_there_are_no_abbreviations(short: str) -> None:
    assert f"unknown option {short}" in refusal(*NEEDED, short, "2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch_size", "-1"], "-1 is less than 0"),
        (["--batch_size", "many"], "'many' is not a whole number"),
        (["--threads", "1.5"], "'1.5' is not a whole number"),
        (["--max_pixels", "0"], "0 is less than 1"),
        (["--ignore_label", "void"], "--ignore_label: 'void' is neither a value from"),
        (["--ignore_label", "65536"], "--ignore_label: 65536 is neither a value from"),
        (["--max_failure_ratio", "1.1"], "not between 0 and 1"),
        (["--max_failure_ratio", "nan"], "not between 0 and 1"),
        (["--max_failure_ratio", "half"], "'half' is not a number"),
        (["--backend", "onnx"], "invalid choice: 'onnx'"),
        (["--mode", "stretch"], "argument --mode: invalid choice: 'stretch' (choose from "),
        (["--tile_overlap", "1"], "1 is not between 0 and 0.9"),
        (["--tile_overlap", "-0.1"], "-0.1 is not between 0 and 0.9"),
        (["--tile_overlap", "nan"], "nan is not between 0 and 0.9"),
        (["--tta", "rotate"], "invalid choice: 'rotate'"),
        (["--input"], "expected one argument"),
        (["--direct_num_workers", "two"], "invalid int value: 'two'"),
        (["--ground_truth", "a", "--ground_truth", "b"], "each --input needs its own"),
        (["--input", "b", "--ground_truth", "a"], "each --input needs its own"),
    ],
)
def test_a_value_out_of_its_range_is_an_error(arguments: list[str], said: str) -> None:
    assert said in refusal(*NEEDED, *arguments)


@pytest.mark.parametrize("option", LATER_OPTIONS)
def test_an_option_that_is_not_supported_yet_says_so(option: str) -> None:
    assert refusal(*NEEDED, option, "1") == f"{option} is not supported yet"
    assert refusal(*NEEDED, f"{option}=1") == f"{option} is not supported yet"


def test_what_is_not_supported_yet_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    words = set(re.split(r"[^a-z0-9_-]+", capsys.readouterr().out))
    assert {"auto", "resize", "tile", "--mode", "--tile_overlap", "--tta"} <= words
    assert words.isdisjoint(LATER_OPTIONS)


@pytest.mark.parametrize(
    "argument",
    ["--runner=DirectRunner", "--project=p", "--temp_location=gs://b/t", "--s3_endpoint_url=http://localhost:1"],
)
def test_beams_options_pass(argument: str) -> None:
    assert parse_options([*NEEDED, argument]).beam_args == (argument,)


def test_a_mistake_ends_with_status_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NEEDED, "--bach_size", "3"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "maskbeam: unknown option --bach_size; did you mean --batch_size?"
        " python -m pipeline --help lists all, no abbreviations\n"
    )
    assert main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_help_explains_every_option_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    parser = module.command_parser()
    headings = [str(group.title) for group in parser._action_groups if group._group_actions]
    assert len(headings) >= 5
    for heading in headings:
        assert f"\n{heading}:\n" in text
    for action in parser._actions:
        assert action.help, action.option_strings
        assert all(option in text for option in action.option_strings)
    loose = [action.dest for action in parser._optionals._group_actions]
    assert loose == ["help"]
    statuses = " ".join(text.split()).partition("Exit status: ")[2]
    for status in ("0 done;", "1 the job failed,", "2 unusable options;", "3 done with too many", "130 interrupted."):
        assert status in statuses
    assert max(map(len, text.splitlines())) <= 100


def test_passwords_and_signatures_of_addresses_are_hidden() -> None:
    for address, shown in (
        ("https://user:pass@host:8/a%20b.tar?sig=1#x", "https://host:8/a%20b.tar?…"),
        ("https://token@host/a.tar", "https://host/a.tar"),
        ("http://host/a.tar?x", "http://host/a.tar?…"),
        ("https://host/a@b.tar", "https://host/a@b.tar"),
        ("https://host", "https://host"),
        ("gs://bucket/a?b@c#d.png", "gs://bucket/a?b@c#d.png"),
        ("/in/a?b@c.png", "/in/a?b@c.png"),
    ):
        assert public_address(address) == shown


def test_every_field_of_the_options_is_an_option_and_documented() -> None:
    dests = {action.dest for action in module.command_parser()._actions} - {"help"}
    fields = set(JobOptions.__dataclass_fields__) - {"beam_args"}
    assert dests == fields
    assert JobOptions.__doc__ is not None
    assert all(f"        {field}: " in JobOptions.__doc__ for field in (*fields, "beam_args"))


@pytest.mark.parametrize("arguments", [["--help"], ["--mode", "stretch"], [*NEEDED, "--model", "no such model"]])
def test_help_and_mistakes_come_before_anything_slow(arguments: list[str]) -> None:
    program = f"""
        import sys
        from pipeline.app.launcher import main
        try:
            main({arguments!r})
        finally:
            slow = {{"apache_beam", "tensorflow", "keras", "ai_edge_litert"}} & set(sys.modules)
            print("slow:", *slow)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "slow:"
    assert "Traceback" not in done.stderr
