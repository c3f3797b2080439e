"""Folders without permission, in tests that run as root."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest


def forbid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the permission to read a folder away, also from root."""
    real_open, real_access = os.open, os.access

    def open_(path: str, *args: Any, **kwargs: Any) -> int:
        if str(path) == str(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder) and real_access(path, mode))
