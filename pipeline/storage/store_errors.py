"""Converts obstore's exceptions to `OSError` with one line of text, and classifies transient."""

import errno
import re

from obstore import exceptions

from pipeline.storage.stored_file import StoreFaultError

NOT_FOUND = 404
_RANGE_NOT_SATISFIABLE = 416
_NOT_IMPLEMENTED = 501
_STATUS = re.compile(r"non-2xx status code: (\d{3})|\(code: (\d{3})\)")
_WRONG_REGION = re.compile(r"incorrectly configured region|AuthorizationHeaderMalformed")
# obstore's messages: 'Generic S3 error: Error performing GET http://… in 2.1s, after 3 retries, max_retries: 9,
# retry_timeout: 180s - Server returned non-2xx status code: 503 Service Unavailable: <Error>…', followed by debug data.
_PREFIXES = re.compile(
    r"^Generic \w+ error: |Error performing (?:\w+ request: )?| in [\d.]+[µnm]?s\b|, max_retries: \d+"
    r"|, retry_timeout: \w+|Server returned non-2xx status code: |HTTP error: (?:error sending request)?"
)
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_BODY = re.compile(r"<(?:\?xml|\w+).*")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>")
_REASON = re.compile(r'message: "([^"]+)"|error: "([^"]+)"')


def http_status(error: BaseException) -> int | None:
    """The HTTP status in an exception of obstore; None if it has none."""
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def is_past_end(error: BaseException) -> bool:
    """Whether the requested range starts at or after the end of the object."""
    return http_status(error) == _RANGE_NOT_SATISFIABLE or "but object was only" in str(error)


def is_wrong_region(error: BaseException) -> bool:
    """Whether S3 reports that the bucket is in another region."""
    return bool(_WRONG_REGION.search(str(error)))


def is_transient(error: BaseException) -> bool:
    """Whether an error that obstore raises after its own retries is worth another attempt: connection errors."""
    if isinstance(error, exceptions.GenericError):
        return http_status(error) is None and not is_wrong_region(error)
    return isinstance(error, ConnectionError)


def os_error(error: Exception) -> OSError:
    """Converts an exception to `FileNotFoundError`, `PermissionError`, `StoreFaultError` or another `OSError`."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    status, text = http_status(error), _one_line(str(error))
    if status == NOT_FOUND or (status is None and isinstance(error, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, text)
    denied = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError
    if isinstance(error, denied) or status in (401, 403) or "token request" in text:
        return PermissionError(errno.EACCES, text)
    if isinstance(error, exceptions.NotSupportedError):
        return OSError(errno.EOPNOTSUPP, "the server does not support range requests; download the file first")
    if isinstance(error, exceptions.InvalidPathError | ValueError):
        return OSError(errno.EINVAL, text)
    if is_transient(error) or (status and (status >= 500 or status in (408, 429)) and status != _NOT_IMPLEMENTED):
        return StoreFaultError(errno.EIO, text)
    return OSError(errno.EINVAL, text)


def _one_line(text: str) -> str:
    """The message of an exception of obstore, without debug data and without the secrets of signed URLs."""
    line, _, data = " ".join(text.split()).partition(" Debug source:")
    message, reason = _MESSAGE.search(line), None if _STATUS.search(line) else _REASON.search(data)
    line = _BODY.sub(message[1] if message else "", line)
    line = " ".join(_QUERY.sub(r"\1", _PREFIXES.sub("", line)).split()).replace(" - ", ": ").rstrip(" :-")
    return f"{line}: {reason[1] or reason[2]}"[:300] if reason else line[:300]
