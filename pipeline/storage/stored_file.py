"""The properties of a stored file, and the error of a store that keeps failing."""

from collections.abc import Callable
from dataclasses import dataclass

OnUnreadable = Callable[[str], None]
"""Called with the path of each folder that is skipped because this process has no permission to read it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in storage.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.
        version: changes when the content changes: modification time in ns, or the entity tag in quotes.
        modified_ns: modification time by the store's clock, ns; of an object rounded to the second, or in a listing
            to the store's resolution.
    """

    uri: str
    size_bytes: int
    version: str
    modified_ns: int = 0


class StoreFaultError(OSError):
    """A transient error of a store that occurred in all attempts."""
