"""Trying transient storage errors again: exponential backoff with jitter, for as long as the caller has patience.

Delays double from a quarter of a second to ten, each drawn from its upper half ("equal jitter": Brooker, "Exponential
Backoff and Jitter", AWS Architecture Blog 2015), so that the workers of a cluster don't retry all at once.
"""

import contextlib
import errno
import random
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

ATTEMPTS = 9
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0
JOB_PATIENCE_S = 180.0
"""How long after the first attempt of an operation another one begins, while a job runs."""
CHECK_PATIENCE_S = 5.0
"""The same for checks before a job, where somebody waits."""
_PATIENCE_S: ContextVar[float] = ContextVar("patience_s", default=JOB_PATIENCE_S)
_TRANSIENT_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH EINTR EIO ENETDOWN ENETRESET ENETUNREACH EPIPE"
        " EREMOTEIO ESTALE ETIMEDOUT"
    ).split()
    if hasattr(errno, name)
)
_T = TypeVar("_T")


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Sets for a `with` block how long storage errors are retried; it holds for this thread, not for new ones.

    Args:
        seconds: after so long no further attempt begins.
    """
    token = _PATIENCE_S.set(seconds)
    try:
        yield
    finally:
        _PATIENCE_S.reset(token)


def patience_s() -> float:
    """How long storage errors are retried here, seconds."""
    return _PATIENCE_S.get()


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
    ends = clock() + patience_s()
    for delay_s in delays():
        try:
            return act()
        except Exception as error:
            if not is_transient(error) or clock() + delay_s > ends:
                raise
        sleep(delay_s * (0.5 + 0.5 * draw()))
    return act()


def delays() -> Iterator[float]:
    """The longest waits between `ATTEMPTS` attempts, seconds."""
    return (min(FIRST_DELAY_S * 2**attempt, LONGEST_DELAY_S) for attempt in range(ATTEMPTS - 1))


def is_transient_local(error: BaseException) -> bool:
    """Whether a fault of a local or mounted file system may pass: a lost connection, not a full disk."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
