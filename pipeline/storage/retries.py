"""Trying again what a store may answer better the next time: exponential backoff with jitter.

Delays double from a quarter of a second to ten, each drawn from its upper half ("equal jitter": Brooker, "Exponential
Backoff and Jitter", AWS Architecture Blog 2015), so that the workers of a cluster don't come back all at once.
"""

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

ATTEMPTS = 9
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0
NO_ATTEMPT_AFTER_S = 120.0
"""Where each attempt itself takes long (a host that doesn't answer), patience ends here."""
_TRANSIENT_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH EINTR EIO ENETDOWN ENETRESET ENETUNREACH EPIPE"
        " EREMOTEIO ESTALE ETIMEDOUT"
    ).split()
    if hasattr(errno, name)
)
_TRANSIENT_STATUSES = frozenset((408, 425, 429))
_NOT_IMPLEMENTED = 501
# Credentials and settings don't mend themselves; told by name, for the clients' packages may be absent.
_PERMANENT_TYPES = frozenset(
    "AssertionError DefaultCredentialsError NoCredentialsError NoRegionError ParamValidationError"
    " PartialCredentialsError ProfileNotFound TypeError".split()
)
_T = TypeVar("_T")


def with_retries(
    act: Callable[[], _T],
    is_transient: Callable[[BaseException], bool],
    *,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """Does something, and again where it fails in a way that may pass.

    Args:
        act: what to do; it may be done several times.
        is_transient: whether a fault may pass.
        sleep: waits so many seconds.
        draw: a number from 0 to 1.
        clock: seconds on a clock that never goes back.

    Returns:
        What `act` returns.

    Raises:
        Exception: what `act` raised last.
    """
    began = clock()
    for delay_s in delays():
        try:
            return act()
        except Exception as error:
            if not is_transient(error) or clock() - began > NO_ATTEMPT_AFTER_S:
                raise
        sleep(delay_s * (0.5 + 0.5 * draw()))
    return act()


def delays() -> Iterator[float]:
    """The longest waits between `ATTEMPTS` attempts, seconds."""
    return (min(FIRST_DELAY_S * 2**attempt, LONGEST_DELAY_S) for attempt in range(ATTEMPTS - 1))


def is_transient_local(error: BaseException) -> bool:
    """Whether a fault of a local or mounted file system may pass: a lost connection, not a full disk."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS


def is_transient_remote(error: BaseException) -> bool:
    """Whether a bucket's fault may pass: 5xx, 408, 429, and all that broke before there was a status."""
    if isinstance(error, FileNotFoundError | PermissionError | ValueError | ImportError):
        return False
    if any(type(one).__name__ in _PERMANENT_TYPES for one in _with_causes(error)):
        return False
    status = http_status(error)
    return status is None or (status >= 500 and status != _NOT_IMPLEMENTED) or status in _TRANSIENT_STATUSES


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error of a store's client carries, itself or within; None where there is none."""
    for one in _with_causes(error):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(one, "status_code", None) or getattr(one, "code", None)
        if isinstance(status, int) and 100 <= status < 600:
            return status
        if isinstance(one, FileNotFoundError):
            return 404
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what Beam's file systems hide in it: a dictionary of errors by path."""
    yield error
    details: Any = getattr(error, "exception_details", None)
    for within in details.values() if isinstance(details, dict) else ():
        if isinstance(within, BaseException):
            yield from _with_causes(within)
    if error.__cause__ is not None:
        yield from _with_causes(error.__cause__)
