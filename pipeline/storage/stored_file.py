"""What storage tells of one file, and the error of a store that keeps failing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One listed file.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.
        version: changes when the content changes: modification time in ns, or the entity tag in quotes.
        modified_ns: when it was last written, by the store's clock; of a bucket's object in a listing to the
            millisecond or second, as the store has it, looked up alone to the second.
    """

    uri: str
    size_bytes: int
    version: str
    modified_ns: int = 0


class StoreFaultError(OSError):
    """A store that failed in a way that may pass, and did so in all attempts."""
