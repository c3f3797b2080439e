"""obstore's stores: one per bucket and process, shared by all threads."""

import errno
import os
import re
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any

from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from pipeline.storage.retries import FIRST_DELAY_S, MAX_DELAY_S, patience_s
from pipeline.storage.store_options import Access, StoreOptions, azure_access, gcs_access, s3_access

Store = S3Store | GCSStore | AzureStore | HTTPStore

WEB_SCHEMES = ("https://", "http://")
_CONNECT_S, _READ_S, _WRITE_S = 5, 60, 600
# A URL whose path is unchanged after obstore has decoded and encoded it.
_PART = r"[\w~+@,=:;!$&'()*-][\w.~+@,=:;!$&'()*-]*"
_PLAIN_URL = re.compile(rf"(https?://[^/?#]+)/({_PART}(?:/{_PART})*)", re.ASCII)

_configured: StoreOptions | None = None
_stores: dict[tuple[Any, ...], Store] = {}
_regions: dict[str, str] = {}
_making = threading.Lock()
_forked = False


def configure(options: StoreOptions | None) -> None:
    """Sets the options for access to stores; None for those that Beam gave this process."""
    global _configured
    with _making:
        _configured = options
        _stores.clear()  # the environment may have changed too


def store_of(uri: str, writes: bool) -> tuple[Store, str]:
    """The store of an object, and the object's key there."""
    if _forked:
        raise OSError(errno.ENOSYS, "object stores can't be used in a forked process; use the start method spawn")
    scheme, bucket, key = parts_of(uri)
    options = _configured or StoreOptions.of_process()
    wanted = (scheme, bucket, writes, patience_s(), options)
    if bucket == uri:  # a store of one object
        return _make_store(scheme, bucket, writes, options), key
    store = _stores.get(wanted)
    if store is None:
        with _making:
            store = _stores.get(wanted) or _make_store(scheme, bucket, writes, options)
            _stores[wanted] = store
    return store, key


def parts_of(uri: str) -> tuple[str, str, str]:
    """Splits `s3://bucket/a/b` into `s3`, `bucket` and `a/b`.

    In a web address, the server is used as the bucket; if it has a query or characters that must not be re-encoded, the
    whole address is.
    """
    if uri.startswith(WEB_SCHEMES):
        plain = _PLAIN_URL.fullmatch(uri)
        return (uri.partition(":")[0], plain[1], plain[2]) if plain else (uri.partition(":")[0], uri, "")
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise OSError(errno.EINVAL, f"{uri} has no bucket")
    return scheme, bucket, key


def _make_store(scheme: str, bucket: str, writes: bool, options: StoreOptions) -> Store:
    access = {
        "s3": lambda: s3_access(options, _regions.get(bucket)),
        "gs": lambda: gcs_access(options),
        "az": lambda: azure_access(options),
        "https": lambda: Access({}, {}),
        "http": lambda: Access({}, {"allow_http": True}),
    }[scheme]()
    patience = patience_s()
    client: Any = access.client | {"connect_timeout": timedelta(seconds=_CONNECT_S)}
    if writes:
        client["timeout"] = timedelta(seconds=_WRITE_S)
    else:
        # A large object may take any time, as long as data arrives.
        client |= {"timeout": timedelta(days=1), "read_timeout": timedelta(seconds=_READ_S)}
    backoff: Any = {
        # obstore starts a wait without checking the remaining time, so waits are short compared with it.
        "init_backoff": timedelta(seconds=min(FIRST_DELAY_S, patience / 8)),
        "max_backoff": timedelta(seconds=min(MAX_DELAY_S, patience / 4)),
        "base": 2,
    }
    retry: Any = {"max_retries": 1_000, "retry_timeout": timedelta(seconds=patience), "backoff": backoff}
    if scheme in ("https", "http"):
        return HTTPStore.from_url(bucket, client_options=client, retry_config=retry)
    stores: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    store: Store = stores[scheme](
        bucket,
        config=access.config,
        client_options=client,
        retry_config=retry,
        credential_provider=access.credential_provider,
    )
    return store


def learn_region(uri: str) -> bool:
    """Requests the region of a bucket from S3; returns whether it differs from the known one."""
    bucket = parts_of(uri)[1]
    endpoint = s3_access(_configured or StoreOptions.of_process()).config.get("endpoint", "https://s3.amazonaws.com")
    request = urllib.request.Request(f"{endpoint}/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_CONNECT_S) as response:
            headers = response.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except OSError:
        return False
    region = headers.get("x-amz-bucket-region")
    if not region or _regions.get(bucket) == region:
        return False
    with _making:
        _regions[bucket] = region
        for made in [made for made in _stores if made[:2] == ("s3", bucket)]:
            del _stores[made]
    return True


def _mark_forked() -> None:
    global _forked
    _forked = bool(_stores)


# obstore's threads don't survive a fork: a call would block forever.
os.register_at_fork(after_in_child=_mark_forked)
