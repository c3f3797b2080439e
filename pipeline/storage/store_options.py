"""Access to object stores: endpoints and credentials from Beam's options, the environment and the machine."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from obstore.store import AzureConfig, GCSConfig, S3Config

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@dataclass(frozen=True)
class StoreOptions:
    """Beam's options for access to stores; fields have the names and meanings of the options."""

    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = field(default=None, repr=False)
    s3_session_token: str | None = field(default=None, repr=False)
    s3_endpoint_url: str | None = None
    s3_region_name: str | None = None
    s3_verify: str | None = None
    s3_disable_ssl: bool = False
    no_auth: bool = False
    impersonate_service_account: str | None = None
    azure_connection_string: str | None = field(default=None, repr=False)
    blob_service_endpoint: str | None = None
    azure_managed_identity_client_id: str | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "StoreOptions":
        """Extracts the options from Beam's arguments."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for option in dataclasses.fields(cls):
            parser.add_argument(f"--{option.name}", action="store_true" if option.default is False else "store")
        return cls(**vars(parser.parse_known_args(list(arguments))[0]))

    @classmethod
    def of_process(cls) -> "StoreOptions":
        """The options that Beam gave this process, which a worker receives; the defaults outside a job."""
        global _OF_PROCESS
        if "apache_beam" not in sys.modules:
            return cls()
        from apache_beam.io.filesystems import FileSystems

        options = FileSystems._pipeline_options
        if options is not _OF_PROCESS[0]:
            given: Mapping[str, Any] = options.get_all_options(drop_default=True) if options else {}
            chosen = {name: given[name] for name in cls.__dataclass_fields__ if given.get(name) is not None}
            _OF_PROCESS = options, cls(**chosen)
        return _OF_PROCESS[1]


# Beam's options of this process and the ones extracted from them; extracting takes milliseconds.
_OF_PROCESS: tuple[object, StoreOptions] = (None, StoreOptions())


@dataclass(frozen=True)
class Access:
    """Access to one bucket, as arguments of obstore's stores.

    Args:
        config: the argument `config`.
        client: the argument `client_options`.
        credential_provider: provides and refreshes credentials; None if `config` or obstore itself has them.
    """

    config: Any
    client: dict[str, Any]
    credential_provider: Any = None


def s3_access(options: StoreOptions, region: str | None = None) -> Access:
    """Access to an S3 bucket.

    With boto3 (the extra `aws`), credentials, region and endpoint come from all sources of Amazon's tools, including
    profiles and single sign-on; without it, from the environment and the machine's role.

    Args:
        options: Beam's.
        region: the bucket's region if it is known; it takes precedence over the machine's settings.

    Raises:
        PermissionError: there are no credentials.
    """
    session = _boto_session()
    profile = session.get_scoped_config() if session else {}
    endpoint = options.s3_endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = endpoint or profile.get("endpoint_url")
    region = region or options.s3_region_name or (session and session.get_config_variable("region"))
    config: S3Config = {"disable_bulk_delete": True}
    if region:
        config["region"] = region
    if options.s3_disable_ssl:
        endpoint = (endpoint or f"https://s3.{region or 'us-east-1'}.amazonaws.com").replace("https://", "http://", 1)
    if endpoint:
        config["endpoint"] = endpoint
    client = _client(endpoint)
    if options.s3_verify is not None:
        client |= _verification(options.s3_verify)
    if options.s3_access_key_id:
        config["access_key_id"] = options.s3_access_key_id
        config["secret_access_key"] = options.s3_secret_access_key or ""
        if options.s3_session_token:
            config["session_token"] = options.s3_session_token
        return Access(config, client)
    if session is None or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return Access(config, client)
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Access(config, client, Boto3CredentialProvider(session))
    except ValueError as error:
        raise PermissionError(
            "no credentials for s3:// (AWS_ACCESS_KEY_ID, a profile or the machine's role)"
        ) from error


def _boto_session() -> Any:
    """A session of botocore, None where the extra `aws` is missing."""
    try:
        import boto3  # noqa: F401  (obstore's provider imports it)
        import botocore.session
    except ImportError:
        return None
    return botocore.session.get_session()


def _verification(verify: str) -> dict[str, Any]:
    """Client settings for `--s3_verify`: a file of certificates, or whether certificates are verified."""
    if verify.lower() in ("false", "0", "no"):
        return {"allow_invalid_certificates": True}
    if verify.lower() in ("true", "1", "yes"):
        return {}
    with open(verify, encoding="ascii") as file:
        return {"root_certificate": file.read()}


def gcs_access(options: StoreOptions) -> Access:
    """Access to a bucket of Google Cloud Storage.

    With google-auth (the extra `gcp`), credentials come from all sources of Google's tools, including workload identity
    federation and impersonation; without it, from a key file, `gcloud`'s login or the machine's account.

    Raises:
        PermissionError: there are no credentials.
    """
    config: GCSConfig = {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if endpoint := emulator or os.environ.get("GOOGLE_BASE_URL"):
        config["base_url"] = endpoint if "://" in endpoint else f"http://{endpoint}"
    # Compressed objects are read as they are stored: ranges refer to the stored bytes.
    client = _client(config.get("base_url")) | {"default_headers": {"accept-encoding": "gzip"}}
    if options.no_auth or emulator:
        # Reads are not signed; obstore asks for a token before it writes.
        config["skip_signature"] = True
        config["bearer_token"] = "anonymous"
        return Access(config, client)
    return Access(config, client, _google_provider(options.impersonate_service_account))


def _google_provider(impersonated: str | None) -> Any:
    """A provider with Google's default credentials; None without the extra `gcp`."""
    try:
        import google.auth
        from google.auth import exceptions, impersonated_credentials
        from obstore.auth.google import GoogleCredentialProvider
    except ImportError:
        if impersonated:
            raise PermissionError(
                "--impersonate_service_account needs the extra gcp: pip install 'maskbeam[gcp]'"
            ) from None
        return None
    try:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
    except exceptions.DefaultCredentialsError as error:
        raise PermissionError(f"no credentials for gs://: {error}") from error
    if impersonated:
        # As in Beam: the last account is impersonated, the others are delegates.
        *delegates, target = impersonated.split(",")
        impersonate: Any = impersonated_credentials.Credentials
        credentials = impersonate(credentials, target, [_GOOGLE_SCOPE], delegates)
    return GoogleCredentialProvider(credentials)


def azure_access(options: StoreOptions) -> Access:
    """Access to a container of Azure Blob Storage: a connection string, the environment or the machine's identity.

    Raises:
        PermissionError: no storage account is named.
    """
    config: AzureConfig = {}
    connection = options.azure_connection_string or os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if connection:
        config = _connection(connection)
    elif options.blob_service_endpoint:
        config["endpoint"] = options.blob_service_endpoint.rstrip("/")
        config["account_name"] = (urlsplit(options.blob_service_endpoint).hostname or "").partition(".")[0]
    elif name := os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT"):
        config["account_name"] = name
    else:
        raise PermissionError(
            "no storage account for az://: set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING"
        )
    if options.azure_managed_identity_client_id:
        config["client_id"] = options.azure_managed_identity_client_id
    return Access(config, _client(config.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT")))


def _connection(text: str) -> "AzureConfig":
    """Parses a connection string of the Azure portal."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        return {"use_emulator": True}
    config: AzureConfig = {"account_name": parts.get("AccountName", "")}
    if "AccountKey" in parts:
        config["account_key"] = parts["AccountKey"]
    if "SharedAccessSignature" in parts:
        config["sas_key"] = parts["SharedAccessSignature"]
    protocol, suffix = parts.get("DefaultEndpointsProtocol", "https"), parts.get("EndpointSuffix", "core.windows.net")
    config["endpoint"] = parts.get("BlobEndpoint") or f"{protocol}://{config['account_name']}.blob.{suffix}"
    config["endpoint"] = config["endpoint"].rstrip("/")
    return config


def _client(endpoint: str | None) -> dict[str, Any]:
    """Client settings: plain HTTP is allowed only if the endpoint has it."""
    return {"allow_http": True} if endpoint and endpoint.startswith("http://") else {}
