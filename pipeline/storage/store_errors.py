"""What obstore raises as an `OSError` with one line of text, and which of it is transient."""

import errno
import re

from obstore import exceptions

from pipeline.storage.stored_file import StoreFaultError

NOT_FOUND = 404
_RANGE_NOT_SATISFIABLE = 416
_NOT_IMPLEMENTED = 501
_STATUS = re.compile(r"non-2xx status code: (\d{3})|\(code: (\d{3})\)")
_WRONG_REGION = re.compile(r"incorrectly configured region|AuthorizationHeaderMalformed")
# What obstore says: 'Generic S3 error: Error performing GET http://… in 2.1s, after 3 retries, max_retries: 9,
# retry_timeout: 180s - Server returned non-2xx status code: 503 Service Unavailable: <Error>…', and below it its data.
_NOISE = re.compile(
    r"^Generic \w+ error: |Error performing (?:\w+ request: )?| in [\d.]+[µnm]?s\b|, max_retries: \d+"
    r"|, retry_timeout: \w+|Server returned non-2xx status code: |HTTP error: (?:error sending request)?"
)
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_BODY = re.compile(r"<(?:\?xml|\w+).*")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>")
_REASON = re.compile(r'message: "([^"]+)"|error: "([^"]+)"')


def http_status(error: BaseException) -> int | None:
    """The HTTP status in an error of obstore, None where there was none."""
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def is_behind_end(error: BaseException) -> bool:
    """Whether a range was asked for that begins where the object has ended."""
    return http_status(error) == _RANGE_NOT_SATISFIABLE or "but object was only" in str(error)


def is_wrong_region(error: BaseException) -> bool:
    """Whether S3 answers that the bucket is in another region."""
    return bool(_WRONG_REGION.search(str(error)))


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may help after those of obstore: where no status came, and for answers cut short."""
    if isinstance(error, exceptions.GenericError):
        return http_status(error) is None and not is_wrong_region(error)
    return isinstance(error, ConnectionError)


def os_error(error: Exception) -> OSError:
    """The error as callers know it: not found, no permission, a store's fault that may pass, or another."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    status, text = http_status(error), _one_line(str(error))
    if status == NOT_FOUND or (status is None and isinstance(error, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, text)
    denied = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError
    if isinstance(error, denied) or status in (401, 403) or "token request" in text:
        return PermissionError(errno.EACCES, text)
    if isinstance(error, exceptions.NotSupportedError):
        return OSError(errno.EOPNOTSUPP, "the server does not read by range; download the file first")
    if isinstance(error, exceptions.InvalidPathError | ValueError):
        return OSError(errno.EINVAL, text)
    if is_transient(error) or (status and (status >= 500 or status in (408, 429)) and status != _NOT_IMPLEMENTED):
        return StoreFaultError(errno.EIO, text)
    return OSError(errno.EINVAL, text)


def _one_line(text: str) -> str:
    """What an error of obstore says, without its data structures and the secrets that a signed address holds."""
    said, _, data = " ".join(text.split()).partition(" Debug source:")
    message, reason = _MESSAGE.search(said), None if _STATUS.search(said) else _REASON.search(data)
    said = _BODY.sub(message[1] if message else "", said)
    said = " ".join(_QUERY.sub(r"\1", _NOISE.sub("", said)).split()).replace(" - ", ": ").rstrip(" :-")
    return f"{said}: {reason[1] or reason[2]}"[:300] if reason else said[:300]
