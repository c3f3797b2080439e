"""Retries transient storage errors with exponential backoff and jitter, for a time that the caller sets.

Delays double from 0.25 s to 10 s; each is drawn from its upper half ("equal jitter": Brooker, "Exponential Backoff and
Jitter", AWS Architecture Blog 2015), so that the workers of a cluster don't retry at the same time.
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
MAX_DELAY_S = 10.0
JOB_PATIENCE_S = 180.0
"""Maximum time from the first attempt of an operation to the start of the last, while a job runs."""
CHECK_PATIENCE_S = 5.0
"""The same for checks before a job, while the user waits."""
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
    """Sets for a `with` block how long storage errors are retried, in this thread but not in threads that it starts.

    Args:
        seconds: after this time no further attempt starts.
    """
    token = _PATIENCE_S.set(seconds)
    try:
        yield
    finally:
        _PATIENCE_S.reset(token)


def patience_s() -> float:
    """How long storage errors are retried in this context, seconds."""
    return _PATIENCE_S.get()


def with_retries(
    act: Callable[[], _T],
    is_transient: Callable[[BaseException], bool],
    *,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """Calls a function and retries it after transient errors.

    Args:
        act: the function; it may be called several times.
        is_transient: whether an error is transient.
        sleep: waits for a number of seconds.
        draw: returns a random number from 0 to 1.
        clock: returns seconds of a monotonic clock.

    Returns:
        The result of `act`.

    Raises:
        Exception: the last error of `act`.
    """
    deadline = clock() + patience_s()
    for delay_s in delays():
        try:
            return act()
        except Exception as error:
            if not is_transient(error) or clock() + delay_s > deadline:
                raise
        sleep(delay_s * (0.5 + 0.5 * draw()))
    return act()


def delays() -> Iterator[float]:
    """The maximum delays between `ATTEMPTS` attempts, seconds."""
    return (min(FIRST_DELAY_S * 2**attempt, MAX_DELAY_S) for attempt in range(ATTEMPTS - 1))


def is_transient_local(error: BaseException) -> bool:
    """Whether an error of a local or network file system is transient: a lost connection, but not a full disk."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
