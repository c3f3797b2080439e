"""The clients of buckets, made by Beam with its options; what they raise becomes an `OSError` after all attempts.

The one room below the second floor that knows Beam.
"""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipeline.storage.buckets import Bucket, GcsBucket, S3Bucket, StoredFile
from pipeline.storage.retries import http_status, is_transient_remote, with_retries

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_BUCKETS: dict[str, tuple["PipelineOptions", Bucket]] = {}
_MAKING_BUCKETS = threading.Lock()
_T = TypeVar("_T")


class StoreFaultError(OSError):
    """A store that failed in a way that may pass, and went on so through all attempts."""


def configure(beam_arguments: Sequence[str]) -> None:
    """Tells Beam's file systems the options of the command line, before there is a pipeline that does.

    Args:
        beam_arguments: Beam's own options, such as `--s3_endpoint_url`.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(beam_arguments)))


def with_bucket(uri: str, act: Callable[[Bucket], _T]) -> _T:
    """Does something with the bucket of a URI, tries again what may pass, and turns what remains into an `OSError`."""
    try:
        return with_retries(lambda: act(_bucket(uri)), is_transient_remote)
    except Exception as error:
        raise _os_error(error) from error


def list_objects(prefix: str) -> Iterator[StoredFile]:
    """All objects whose URI begins so, without those that only stand for a folder; a page is asked for at a time.

    The clients try each page again for some seconds; where the store fails for longer, the listing is begun again and
    what was listed is passed over, for objects come in the order of their keys.
    """
    try:
        objects = _bucket(prefix).list(prefix)
    except Exception as error:
        raise _os_error(error) from error
    last = ""

    def listed() -> StoredFile | None:
        nonlocal last, objects
        try:
            while (stored := next(objects, None)) is not None and stored.uri <= last:
                pass
        except Exception:
            objects = _bucket(prefix).list(prefix)
            raise
        last = stored.uri if stored else last
        return stored

    try:
        while (stored := with_retries(listed, is_transient_remote)) is not None:
            if not stored.uri.endswith("/"):
                yield stored
    except Exception as error:
        raise _os_error(error) from error


def _bucket(uri: str) -> Bucket:
    """The store's client with the options of Beam's file systems, made once a process: making one takes 0.1 s."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    options = FileSystems._pipeline_options or PipelineOptions()
    scheme = uri.partition("://")[0]
    made = _BUCKETS.get(scheme)
    if made is None or made[0] is not options:
        with _MAKING_BUCKETS:
            made = _BUCKETS[scheme] = (options, _make_bucket(scheme, options))
    return made[1]


def _make_bucket(scheme: str, options: "PipelineOptions") -> Bucket:
    extra = "aws" if scheme == "s3" else "gcp"
    try:
        if scheme == "s3":
            import boto3  # noqa: F401  (Beam's module can be imported without it)
            from apache_beam.io.aws.clients.s3.boto3_client import Client

            return S3Bucket(Client(options).client)
        from apache_beam.io.gcp.gcsio import create_storage_client
        from apache_beam.options.pipeline_options import GoogleCloudOptions
    except ImportError as error:
        raise ImportError(f"{scheme}:// needs the extra {extra}: pip install 'maskbeam[{extra}]'") from error
    # Beam itself looks for credentials for half a minute even where it is told that there are none.
    has_credentials = not options.view_as(GoogleCloudOptions).no_auth
    return GcsBucket(create_storage_client(options, use_credentials=has_credentials))


def _os_error(error: Exception) -> OSError:
    if isinstance(error, ImportError):
        return OSError(errno.ENOSYS, str(error))
    status = http_status(error)
    text = " ".join(str(error).split())[:300]
    if status == 404:
        return FileNotFoundError(errno.ENOENT, text)
    if status in (401, 403):
        return PermissionError(errno.EACCES, text)
    if is_transient_remote(error):
        return StoreFaultError(errno.EIO, text)
    return OSError(errno.EINVAL, text)
