"""Addresses of files: what may be shown of a URL, and what identifies the file."""

import re

_WEB_ADDRESS = re.compile(
    r"(?P<scheme>https?://)(?:[^/?#]*@)?(?P<host>[^/?#@]*)(?P<path>[^?#]*)(?P<rest>[?#].*)?", re.DOTALL
)
# Query parameters in lower case: those that a signature requires, and those that belong to it. Signature Version 4 of
# Amazon S3 and Google Cloud Storage, their Version 2, Amazon CloudFront, and Azure's shared access signatures.
_SIGNATURES = tuple(
    (frozenset(required.split()), re.compile(parameters, re.DOTALL))
    for required, parameters in (
        ("x-amz-signature", r"x-amz-.*"),
        ("x-goog-signature", r"x-goog-.*"),
        ("signature awsaccesskeyid", r"signature|expires|awsaccesskeyid"),
        ("signature googleaccessid", r"signature|expires|googleaccessid"),
        ("signature key-pair-id", r"signature|expires|policy|key-pair-id"),
        ("sig sv", r"sig|sv|ss|srt|st|se|sp|spr|sip|sr|si|sdd|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid"),
    )
)


def public_address(address: str) -> str:
    """An address for files and people: a web address without the password and the query, which may be a signature.

    Args:
        address: a path or URI.

    Returns:
        The address; `?…` replaces a query or fragment. Other addresses are not changed, because `?`, `#` and `@`
        may be parts of names.
    """
    web = _WEB_ADDRESS.fullmatch(address)
    if web is None:
        return address
    return web["scheme"] + web["host"] + web["path"] + ("?…" if web["rest"] else "")


def unsigned_address(address: str) -> str:
    """An address without a signature, which is different each time that the URL of a file is signed.

    Args:
        address: a path or URI.

    Returns:
        The address; of a web address without the query parameters of a known kind of signature. All other parameters
        are kept, because they may select the content.
    """
    if _WEB_ADDRESS.fullmatch(address) is None:
        return address
    page, _, rest = address.partition("?")
    query, mark, fragment = rest.partition("#")
    parameters = [(parameter.partition("=")[0].lower(), parameter) for parameter in query.split("&")]
    names = {name for name, _ in parameters}
    for required, signature in _SIGNATURES:
        if required <= names:
            kept = [parameter for name, parameter in parameters if not signature.fullmatch(name)]
            return page + (f"?{'&'.join(kept)}" if kept else "") + mark + fragment
    return address
