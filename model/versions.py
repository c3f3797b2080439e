"""The installed versions of the packages that a model's files depend on."""

import importlib.metadata

_PACKAGES = ("maskbeam", "keras", "tensorflow", "numpy", "ai-edge-litert")


def library_versions() -> dict[str, str]:
    """The versions by package; a package that isn't installed is left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
