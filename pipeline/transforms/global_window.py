"""Beam's windows, of which a batch job has one."""

from typing import Any

from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue


def in_global_window(output: Any) -> Any:
    """What `finish_bundle` may yield: a value with a window, inside the tag where there is one."""
    if isinstance(output, TaggedOutput):
        return TaggedOutput(output.tag, in_global_window(output.value))
    return WindowedValue(output, MIN_TIMESTAMP, (GlobalWindow(),))
