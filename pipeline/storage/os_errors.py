"""Converts errors of the operating system to errors of maskbeam."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.errors import MaskbeamError


@contextmanager
def os_errors_as(error_type: type[MaskbeamError], what: str) -> Iterator[None]:
    """Raises an `OSError` of a `with` block as another error.

    Args:
        error_type: its type.
        what: what failed, such as `the output can't be written: summary.json`; the system's reason is appended.
    """
    try:
        yield
    except OSError as error:
        raise error_type(f"{what}: {error.strerror or error}") from error
