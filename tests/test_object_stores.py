"""Object stores under faults: no answer is taken for whole that isn't, transient errors are retried, others said."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from scripted_store import MODIFIED, Request, ScriptedStore, scripted_store
from small_archive import run_job

from pipeline.storage import filesystem, object_stores, retries, store_pool
from pipeline.storage.store_options import StoreOptions, azure_access, gcs_access, s3_access

DATA = bytes(range(256)) * 400
SCHEMES = ("s3", "gs", "az", "http")
KEY = "c2VjcmV0LWtleQ=="


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedStore]:
    with scripted_store() as running:
        for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_"))]:
            monkeypatch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, os.devnull)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setattr(store_pool, "_stores", {})
        monkeypatch.setattr(store_pool, "_regions", {})
        for module in (retries, store_pool):
            monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
        connection = f"AccountName=acc;AccountKey={KEY};BlobEndpoint={running.url}/acc"
        filesystem.configure(
            [
                *(
                    "--s3_endpoint_url",
                    running.url,
                    "--s3_access_key_id",
                    "an-id",
                    "--s3_secret_access_key",
                    "a-secret",
                ),
                *("--azure_connection_string", connection),
            ]
        )
        yield running
    store_pool.configure(None)


def uri_of(store: ScriptedStore, scheme: str, key: str = "a.bin", data: bytes | None = DATA) -> str:
    """The URI of an object of this key, which is put there."""
    path = {"az": f"/acc/bucket/{key}", "http": f"/bucket/{key}"}.get(scheme, f"/bucket/{key}")
    if data is not None:
        store.objects[path] = data
    return f"{store.url}/bucket/{key}" if scheme == "http" else f"{scheme}://bucket/{key}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "script",
    [[503, 500], [429], [408], ["closed"], ["cut"], ["cut", "cut", 503], ["shortened"], ["short"], ["short", "cut"]],
    ids=str,
)
def test_transient_faults_cost_requests_and_no_bytes(
    store: ScriptedStore, scheme: str, script: list[int | str]
) -> None:
    uri = uri_of(store, scheme)
    store.script = list(script)
    assert filesystem.read_range(uri, 1_000, 50_000) == DATA[1_000:51_000]
    assert len(store.requests) == len(script) + 1
    store.script = [one for one in script if not str(one).startswith("short")]  # of a range
    assert filesystem.read_bytes(uri) == DATA


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", ["short", "shortened", "cut", "closed", 503])
def test_faults_that_stay_are_said_to_be_the_stores(store: ScriptedStore, scheme: str, how: int | str) -> None:
    uri = uri_of(store, scheme)
    store.script = [how] * 1_000
    with filesystem.patience(0.3), pytest.raises(filesystem.StoreFaultError) as caught:
        filesystem.read_range(uri, 1_000, 50_000)
    assert "\n" not in str(caught.value)
    assert "Debug" not in str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("status", "error"), [(400, OSError), (401, PermissionError), (403, PermissionError), (404, FileNotFoundError)]
)
def test_what_no_retry_mends_is_asked_once(
    store: ScriptedStore, scheme: str, status: int, error: type[OSError]
) -> None:
    uri = uri_of(store, scheme)
    store.script = [status] * 100
    with pytest.raises(error) as caught:
        filesystem.read_bytes(uri)
    assert not isinstance(caught.value, filesystem.StoreFaultError)
    assert caught.type is error
    assert len(store.requests) == 1
    assert caught.value.strerror


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("script", [[503, 500], [429], ["closed"]], ids=str)
def test_writes_are_retried(store: ScriptedStore, scheme: str, script: list[int | str]) -> None:
    uri = uri_of(store, scheme, "new.png", None)
    store.script = list(script)
    filesystem.write_bytes(uri, DATA)
    assert list(store.objects.values()) == [DATA]
    assert len(store.requests) == len(script) + 1
    put = store.requests[-1]
    content_type = put.headers["x-ms-blob-content-type" if scheme == "az" else "content-type"]
    assert (put.method, content_type) == ("PUT", "image/png")


def test_a_write_that_the_store_does_not_know_is_no_passing_fault(store: ScriptedStore) -> None:
    store.script = [501] * 1_000
    with filesystem.patience(0.2), pytest.raises(OSError, match="501") as caught:
        filesystem.write_bytes(uri_of(store, "s3", data=None), b"")
    assert not isinstance(caught.value, filesystem.StoreFaultError)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_range_that_is_ignored_is_never_taken_for_the_range(store: ScriptedStore, scheme: str) -> None:
    uri = uri_of(store, scheme)
    store.script = ["whole"] * 1_000
    with filesystem.patience(0.2), pytest.raises(OSError, match="range"):
        filesystem.read_range(uri, 1_000, 10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ranges_end_where_the_object_does(store: ScriptedStore, scheme: str) -> None:
    uri, empty = uri_of(store, scheme), uri_of(store, scheme, "empty", b"")
    assert filesystem.read_range(uri, len(DATA) - 5, 50) == DATA[-5:]
    assert filesystem.read_range(uri, len(DATA), 50) == b""
    assert filesystem.read_range(empty, 0, 50) == b""
    assert filesystem.read_range(uri, 7, 0) == b""
    assert filesystem.read_bytes(empty) == b""
    assert filesystem.read_bytes(uri, 99) == DATA[:100]
    assert filesystem.read_bytes(uri, len(DATA)) == DATA
    assert b"".join(filesystem.read_pieces(uri)) == DATA


@pytest.mark.parametrize("scheme", SCHEMES)
def test_of_a_large_object_no_more_is_read_than_asked_for(store: ScriptedStore, scheme: str) -> None:
    uri = uri_of(store, scheme)
    store.script = ["stalled"]  # the second half never comes
    assert filesystem.read_bytes(uri, 1_000) == DATA[:1_001]
    assert len(store.requests) == 1


def test_deletions_need_no_request_that_only_amazon_knows(store: ScriptedStore) -> None:
    for scheme in ("s3", "gs"):
        filesystem.delete(uri_of(store, scheme))
        assert store.requests[-1].method == "DELETE"
        assert store.requests[-1].path.startswith("/bucket/a")


def test_patience_is_minutes_in_a_job_and_seconds_in_a_check(store: ScriptedStore) -> None:
    uri = uri_of(store, "s3")

    def waits_s() -> float:
        return store_pool.store_of(uri, False)[0].retry_config["retry_timeout"].total_seconds()  # type: ignore[index]

    assert waits_s() == 180
    with filesystem.patience(filesystem.CHECK_PATIENCE_S):
        assert waits_s() == 5
        with filesystem.patience(1):
            assert waits_s() == 1
    assert waits_s() == 180


def test_little_patience_is_no_reason_to_panic(store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pool, "FIRST_DELAY_S", 0.25)
    store.script = [503] * 100
    with filesystem.patience(0.05), pytest.raises(filesystem.StoreFaultError):
        filesystem.stat_file(uri_of(store, "s3"))


def test_without_patience_one_request_is_made(store: ScriptedStore) -> None:
    store.script = [503, 503]
    with filesystem.patience(0), pytest.raises(filesystem.StoreFaultError):
        filesystem.stat_file(uri_of(store, "s3"))
    assert len(store.requests) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_store_says_is_said_in_a_line(store: ScriptedStore, scheme: str) -> None:
    body = b'<?xml version="1.0"?>\n<Error><Code>SlowDown</Code>\n<Message>Reduce your rate.</Message></Error>'
    store.answer = lambda _: (503, {}, body)
    with filesystem.patience(0), pytest.raises(filesystem.StoreFaultError) as caught:
        filesystem.read_bytes(uri_of(store, scheme))
    path = "/acc/bucket/a.bin" if scheme == "az" else "/bucket/a.bin"
    path = path.replace(".", "%2E") if scheme == "gs" else path
    assert caught.value.strerror == f"GET {store.url}{path}: 503 Service Unavailable: Reduce your rate."


def test_a_dead_endpoint_is_said_before_the_job(
    store: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "CHECK_PATIENCE_S", 0.2)
    dead = ["--s3_endpoint_url", "http://127.0.0.1:9", "--s3_access_key_id", "i"]
    job = run_job(tmp_path / "out", "--input", "s3://bucket/a", *dead)
    assert job.status == 2
    assert re.fullmatch(r"maskbeam: .*--input s3://bucket/a: .*127\.0\.0\.1:9.*Connection refused\n", job.err)


# Conditions.


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_the_condition_of_a_write_is_sent(store: ScriptedStore, scheme: str) -> None:
    store.headers["x-goog-generation"] = "17"
    uri = uri_of(store, scheme)
    assert filesystem.write_if_absent(uri, b"new")
    first = store.requests[-1].headers
    assert filesystem.replace_if_unchanged(uri, b"newer", '"v1"')
    second = store.requests[-1].headers
    if scheme == "gs":
        assert (first["x-goog-if-generation-match"], second["x-goog-if-generation-match"]) == ("0", "17")
    else:
        assert (first["if-none-match"], second["if-match"]) == ("*", '"v1"')


@pytest.mark.parametrize(("scheme", "status"), [("s3", 412), ("gs", 412), ("az", 409), ("az", 412)])
def test_a_refused_condition_is_no_fault(store: ScriptedStore, scheme: str, status: int) -> None:
    store.headers["x-goog-generation"] = "17"
    uri = uri_of(store, scheme, data=b"another's")
    store.answer = lambda request: (status, {}, b"") if request.method == "PUT" else None
    assert not filesystem.write_if_absent(uri, b"mine")
    assert not filesystem.replace_if_unchanged(uri, b"mine", '"v1"')


# Credentials, addresses and options.


def test_s3_takes_the_keys_of_the_options(store: ScriptedStore) -> None:
    filesystem.configure(
        [
            *("--s3_endpoint_url", store.url, "--s3_access_key_id=id-of-mine", "--s3_secret_access_key=x"),
            *("--s3_session_token", "token-of-mine", "--s3_region_name", "eu-north-1", "--runner=DirectRunner"),
        ]
    )
    filesystem.read_bytes(uri_of(store, "s3"))
    headers = store.requests[-1].headers
    assert "Credential=id-of-mine/" in headers["authorization"]
    assert "/eu-north-1/s3/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token-of-mine"


def test_s3_takes_a_profile_of_amazons_tools(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("boto3", reason="profiles need the extra aws")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = id-of-lab\naws_secret_access_key = x\n")
    (tmp_path / "config").write_text(f"[profile lab]\nregion = sa-east-1\nendpoint_url = {store.url}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    filesystem.configure([])
    filesystem.read_bytes(uri_of(store, "s3"))
    authorization = store.requests[-1].headers["authorization"]
    assert "Credential=id-of-lab/" in authorization
    assert "/sa-east-1/s3/" in authorization


def test_missing_credentials_are_said_at_once(store: ScriptedStore) -> None:
    pytest.importorskip("boto3", reason="without it obstore asks the machine's role")
    filesystem.configure(["--s3_endpoint_url", store.url])
    with pytest.raises(PermissionError, match="no credentials for s3://"):
        filesystem.read_bytes("s3://bucket/a")
    filesystem.configure([])
    with pytest.raises(PermissionError, match="no storage account for az://"):
        filesystem.read_bytes("az://bucket/a")
    assert store.requests == []


def test_public_buckets_are_read_unsigned(store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    filesystem.configure(["--s3_endpoint_url", store.url, "--no_auth"])
    for scheme in ("s3", "gs"):
        assert filesystem.read_bytes(uri_of(store, scheme)) == DATA
        assert "authorization" not in store.requests[-1].headers


def test_google_credentials_of_the_machine_sign_requests(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("google.auth", reason="the extra `gcp` is not installed")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "client_email": "robot@example.com", "private_key": key.decode(),
        "private_key_id": "1", "project_id": "a-project", "token_uri": f"{store.url}/token",
    }  # fmt: skip
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_BASE_URL", store.url)
    token = json.dumps({"access_token": "of-the-robot", "expires_in": 3600, "token_type": "Bearer"}).encode()
    store.answer = lambda request: (
        (200, {"Content-Type": "application/json"}, token) if request.path == "/token" else None
    )
    filesystem.configure([])
    assert filesystem.read_bytes(uri_of(store, "gs")) == DATA
    assert filesystem.read_bytes(uri_of(store, "gs")) == DATA
    assert [request.path for request in store.requests].count("/token") == 1
    assert store.requests[-1].headers["authorization"] == "Bearer of-the-robot"
    # Compressed objects come as they are stored.
    assert store.requests[-1].headers["accept-encoding"] == "gzip"


def test_azure_takes_a_connection_string_a_shared_signature_or_an_account(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = uri_of(store, "az")
    filesystem.read_bytes(uri)
    assert store.requests[-1].headers["authorization"].startswith("SharedKey acc:")
    signature = "sv=2021-08-06&sig=secret-of-mine"
    filesystem.configure(
        ["--azure_connection_string", f"AccountName=acc;SharedAccessSignature={signature};BlobEndpoint={store.url}/acc"]
    )
    filesystem.read_bytes(uri)
    assert store.requests[-1].path == f"/acc/bucket/a.bin?{signature}"
    store.script = [403]
    with pytest.raises(PermissionError) as caught:
        filesystem.read_bytes(uri)
    assert "secret-of-mine" not in str(caught.value)
    filesystem.configure([])
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{store.url}/acc")
    filesystem.read_bytes(uri)
    assert store.requests[-1].headers["authorization"].startswith("SharedKey acc:")


def test_a_change_of_the_environment_counts_from_the_next_configuration_on(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = uri_of(store, "gs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    filesystem.configure([])
    with filesystem.patience(0), pytest.raises(filesystem.StoreFaultError):
        filesystem.read_bytes(uri)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
    filesystem.configure([])
    with filesystem.patience(0):
        assert filesystem.read_bytes(uri) == DATA


def test_s3_without_ssl_is_reached_by_plain_http(store: ScriptedStore) -> None:
    address = store.url.replace("http://", "https://")
    filesystem.configure(["--s3_endpoint_url", address, "--s3_disable_ssl", "--s3_access_key_id", "i"])
    assert filesystem.read_bytes(uri_of(store, "s3")) == DATA
    assert (
        s3_access(StoreOptions(s3_disable_ssl=True, s3_region_name="eu-west-3", s3_access_key_id="i")).config[
            "endpoint"
        ]
        == "http://s3.eu-west-3.amazonaws.com"
    )


def test_s3_certificates_are_verified_unless_an_option_disables_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    for verify, expected in (
        (None, {}),
        ("true", {}),
        ("False", {"allow_invalid_certificates": True}),
        (str(tmp_path / "ca.pem"), {"root_certificate": "a certificate"}),
    ):
        assert s3_access(StoreOptions(s3_verify=verify, s3_access_key_id="i")).client == expected
    with pytest.raises(FileNotFoundError):
        s3_access(StoreOptions(s3_verify=str(tmp_path / "none.pem"), s3_access_key_id="i"))


def test_azure_takes_beams_options() -> None:
    options = StoreOptions.parse(
        ["--blob_service_endpoint=https://acc.blob.core.windows.net/", "--azure_managed_identity_client_id=me"]
    )
    assert azure_access(options).config == {
        "account_name": "acc", "endpoint": "https://acc.blob.core.windows.net", "client_id": "me",
    }  # fmt: skip
    standard = StoreOptions(azure_connection_string="AccountName=acc;AccountKey=a2V5;EndpointSuffix=core.windows.net")
    assert azure_access(standard).config["endpoint"] == "https://acc.blob.core.windows.net"
    emulator = StoreOptions(azure_connection_string="UseDevelopmentStorage=true")
    assert azure_access(emulator).config == {"use_emulator": True}


def test_google_accounts_are_impersonated_as_beam_does(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = pytest.importorskip("google.auth", reason="the extra `gcp` is not installed")
    anonymous = pytest.importorskip("google.auth.credentials").AnonymousCredentials()
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(auth, "default", lambda **_: (anonymous, None))
    assert gcs_access(StoreOptions()).credential_provider.credentials is anonymous
    used = gcs_access(StoreOptions(impersonate_service_account="one@x,two@x")).credential_provider.credentials
    assert (used._target_principal, used._delegates) == ("two@x", ["one@x"])


def test_a_bucket_of_another_region_is_found(store: ScriptedStore) -> None:
    uri = uri_of(store, "s3")

    def answer(request: Request) -> tuple[int, dict[str, str], bytes] | None:
        if "eu-central-1" in request.headers.get("authorization", ""):
            return None
        return 301, {"x-amz-bucket-region": "eu-central-1"}, b"<Error><Code>PermanentRedirect</Code></Error>"

    store.answer = answer
    assert filesystem.read_bytes(uri) == DATA
    assert filesystem.read_bytes(uri) == DATA
    assert [request.method for request in store.requests] == ["GET", "HEAD", "GET", "GET"]


def test_a_worker_takes_the_options_that_beam_gave_it(store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store_pool.configure(None)
    given = ["--s3_endpoint_url", store.url, "--s3_access_key_id", "id-of-the-job", "--s3_secret_access_key", "x"]
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([*given, "--no_auth"]))
    assert StoreOptions.of_process() == StoreOptions.parse([*given, "--no_auth"])
    filesystem.read_bytes(uri_of(store, "s3"))
    assert "Credential=id-of-the-job/" in store.requests[-1].headers["authorization"]
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    assert StoreOptions.of_process() == StoreOptions()


def test_secrets_are_not_in_the_options_text() -> None:
    secrets = ["--s3_secret_access_key=s1", "--s3_session_token=s2", "--azure_connection_string=s3"]
    text = repr(StoreOptions.parse(secrets))
    assert not any(secret in text for secret in ("s1'", "s2'", "s3'"))


def test_stores_need_no_beam(store: ScriptedStore) -> None:
    uri = uri_of(store, "s3")
    code = (
        "import sys; from pipeline.storage import filesystem;"
        f"filesystem.configure(['--s3_endpoint_url', {store.url!r}, '--s3_access_key_id', 'a']);"
        f"print(len(filesystem.read_bytes({uri!r})), 'apache_beam' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(DATA)), "False"]


def test_a_forked_process_gets_an_error_and_does_not_block(store: ScriptedStore) -> None:
    uri = uri_of(store, "s3")
    filesystem.read_bytes(uri)
    child = os.fork()
    if not child:
        try:
            filesystem.read_bytes(uri)
        except OSError as error:
            os._exit(7 if error.errno == errno.ENOSYS else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# Listings.


def listing(keys: list[str], more: str = "", sizes: dict[str, int] | None = None) -> tuple[int, dict[str, str], bytes]:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>{(sizes or {}).get(key, 5)}</Size>"
        f'<LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>"e"</ETag></Contents>'
        for key in keys
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    body = f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{entries}{token}</ListBucketResult>"
    return 200, {"Content-Type": "application/xml"}, body.encode()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_interrupted_listing_continues_after_the_last_object(
    store: ScriptedStore, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_stores, "_LIST_CHUNK", 2)
    broken = iter([True, False, False])

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        if "start-after" in request.path:
            return listing(["in/3", "in/4"])
        if "continuation-token" not in request.path:
            return listing(["in/1", "in/2"], more="t")
        return (200, {}, b"<ListBucketResult><Cont") if next(broken) else listing(["in/never asked for"])

    store.answer = answer
    assert [stored.uri for stored in filesystem.list_files(f"{scheme}://bucket/in")] == [
        f"{scheme}://bucket/in/{number}" for number in range(1, 5)
    ]
    assert "start-after=in%2F2" in store.requests[-1].path


def test_objects_that_mark_folders_are_not_listed(store: ScriptedStore) -> None:
    keys = ["in/", "in/a/", "in/a/1.png", "in/b", "in/b/2.png", "in/c"]
    store.answer = lambda _: listing(keys, sizes={"in/": 0, "in/a/": 0, "in/c": 0})
    assert [stored.uri for stored in filesystem.list_files("s3://bucket/in")] == [
        f"s3://bucket/in/{name}" for name in ("a/1.png", "b", "b/2.png", "c")
    ]


def test_a_prefix_that_only_marks_a_folder_is_empty(store: ScriptedStore) -> None:
    store.answer = lambda _: listing(["in/"], sizes={"in/": 0})
    assert list(filesystem.list_files("s3://bucket/in")) == []
    assert not filesystem.is_folder("s3://bucket/in")


def test_versions_are_equal_in_a_listing_and_alone(store: ScriptedStore) -> None:
    uri = uri_of(store, "az")
    blob = (
        f"<Blob><Name>a.bin</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified><Etag>v1</Etag>"
        f"<Content-Length>{len(DATA)}</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>"
    )
    body = f"<EnumerationResults><Blobs>{blob}</Blobs><NextMarker/></EnumerationResults>".encode()
    store.answer = lambda request: (200, {}, body) if "comp=list" in request.path else None
    assert list(filesystem.list_files("az://bucket")) == [filesystem.stat_file(uri)]


def test_a_key_that_cannot_be_read_is_named(store: ScriptedStore) -> None:
    store.answer = lambda _: listing(["in/a//b.png"])
    with pytest.raises(OSError, match=r"in/a//b\.png") as caught:
        list(filesystem.list_files("s3://bucket/in"))
    assert caught.value.errno == errno.EINVAL


def test_a_listing_of_no_bucket_is_an_error_and_not_an_empty_folder(store: ScriptedStore) -> None:
    for scheme in ("s3", "gs", "az"):
        store.script = [404]
        with pytest.raises(FileNotFoundError):
            list(filesystem.list_files(f"{scheme}://bucket/in"))
