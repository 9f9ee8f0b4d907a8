"""What the library of S3 and Azure (`obstore`) tells of an answer, read out of its messages: it has
the status and the body of an answer nowhere else.

Its messages also have the address asked for, the whole answer and a second spelling of it all for
debugging. Of these an operator is told the status, the store's own word for it, and what to do.
"""

from __future__ import annotations

import re

import obstore.exceptions as obstore_errors

from transforms.media.text import printable, without_secrets

_DEBUG = "\n\nDebug source:"
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_JSON_MESSAGE = re.compile(r'"message": ?"((?:[^"\\]|\\.)*)"')
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")
_REDIRECT = "Received redirect without LOCATION"
_REFUSED_DELETE = re.compile(
    r"(?:Bulk delete|DeleteObjects) request failed for key .*?: (.*) \(code: (\w+)\)", re.DOTALL
)
# In the words of S3, which has no code of its own for it.
_KEPT = re.compile(r"object lock|retention|legal hold", re.IGNORECASE)
_REQUEST = re.compile(r"Error performing ([A-Z]+) ")
# S3 repeats the request that was signed, the token of a session with it, and servers in between the
# address, with a shared access signature.
_REPEATED = re.compile(r"<(CanonicalRequest|StringToSign)(Bytes)?>.*?(?:</\1\2>|$)", re.DOTALL)
_SIGNATURE = re.compile(r"\b(sig(?:nature)?(?:=|%3[Dd]))[^&\s<>\"'\\]+", re.IGNORECASE)
_SILENT = re.compile(
    r"Error performing [A-Z]+ (https?://[^/\s?]+).*HTTP error: error sending request"
)
_WHY_SILENT = re.compile(r'(?:message|error): "([^"\n]*)"')
_BAD_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")
_LISTING = ("Error performing list request", "?list-type=", "comp=list&", "comp=list ")
# Errors that have no status: those that a second try meets again.
_FINAL = re.compile(
    r"builder error|Invalid Access Key|URL scheme is not allowed|Unable to parse|"
    r"Failed to parse|invalid path|InvalidCertificate",
    re.IGNORECASE,
)
_PASSING_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted",
     "ConditionalRequestConflict", "ServerBusy", "OperationTimedOut"}
)  # fmt: skip
_NO_PLACE = ("NoSuchBucket", "ContainerNotFound", "The specified container does not exist")
_REPLACED = "it was replaced while it was being read"
_WRONG_CREDENTIALS = (
    "the store does not know these credentials: check the access key or token, and whose it is"
)
_EXPIRED = "the credentials have expired: get new ones"
_WRONG_CLOCK = "the clock of this machine is wrong: set it, such as by NTP"
_ADVICE = {
    "InvalidAccessKeyId": _WRONG_CREDENTIALS,
    "SignatureDoesNotMatch": _WRONG_CREDENTIALS,
    "InvalidToken": _WRONG_CREDENTIALS,
    "AuthenticationFailed": _WRONG_CREDENTIALS,
    "InvalidAuthenticationInfo": _WRONG_CREDENTIALS,
    "AuthorizationFailure": _WRONG_CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _WRONG_CLOCK,
    "NoSuchBucket": "there is no such bucket",
    "ContainerNotFound": "there is no such container",
}
_DETAILS = {
    # Azure has one code for all of these.
    "Request date header too old": _WRONG_CLOCK,
    "Signature not valid in the specified time frame": _EXPIRED,
}
_REGION_CODES = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
)
_DENIED_CODES = frozenset(
    {"AccessDenied", "AllAccessDisabled", "AuthorizationPermissionMismatch",
     "AuthorizationResourceTypeMismatch", "AuthorizationServiceMismatch",
     "InsufficientAccountPermissions", "PublicAccessNotPermitted", "NoAuthenticationInformation"}
)  # fmt: skip
_VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "POST": "write", "DELETE": "delete"}


def is_of_library(error: object) -> bool:
    """Whether the library raised it: also its word for an object that is not there."""
    return isinstance(error, obstore_errors.BaseError) or (
        isinstance(error, FileNotFoundError) and error.errno is None
    )


def hide_secrets(error: BaseException) -> None:
    """Takes out of an error what its traceback must not have: an answer may repeat the request."""
    text = _SIGNATURE.sub(r"\1[hidden]", _REPEATED.sub("", str(error)))
    error.args = (text,)


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status of an answer; None where there was none, or it is not told."""
    told = str(error).split(_DEBUG, 1)[0]
    if found := _STATUS.search(told):
        return int(found[1])
    if found := _REFUSED_DELETE.search(told):
        return int(found[2]) if found[2].isdigit() else None
    return None


def is_passing(error: BaseException) -> bool:
    """Whether another try, a little later, may go well."""
    told = str(error).split(_DEBUG, 1)[0]
    if _code_of(told) in _PASSING_CODES:
        return True
    if (status := status_of(error)) is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, obstore_errors.GenericError):
        told += _debugged(error) if _SILENT.search(told) else ""
        return not (_FINAL.search(told) or _REDIRECT in told or _REFUSED_DELETE.search(told))
    return False


def is_refusal(error: BaseException) -> bool:
    """Whether a store said that it may not be done: for want of a permission, or as it keeps an
    object for a time (in Azure that is a 409).
    """
    told = str(error).split(_DEBUG, 1)[0]
    return status_of(error) in (403, 409) or _code_of(told) in _DENIED_CODES


def has_no_place(error: BaseException) -> bool:
    """Whether a store says that there is no such bucket or container."""
    told = str(error).split(_DEBUG, 1)[0]
    return any(word in told for word in _NO_PLACE)


def has_no_such_range(error: BaseException) -> bool:
    """Whether a store says that an object ends before what was asked for. Azurite says so of an
    object of no bytes by a Content-Range that ends before it begins.
    """
    return status_of(error) == 416 or 'CONTENT_RANGE header: "bytes 0--1/0"' in str(error)


def describe(error: BaseException) -> str:
    """Returns an error in one line: status, the store's word for it, what it means."""
    told = str(error).split(_DEBUG, 1)[0]
    code, status = _code_of(told), status_of(error)
    if isinstance(error, obstore_errors.PreconditionError) and status == 412:
        return f"HTTP status 412: {_REPLACED}"
    if found := _REFUSED_DELETE.search(told):
        return f"it may not be deleted ({found[2]}): {_cut(found[1])}"
    if found := _SILENT.search(told):
        return _why_silent(found[1], _debugged(error))
    said = _advice(told, code, status) or _said(told)
    if status is None:
        return said
    word = f" ({printable(code)[:60]})" if code and not code.isdigit() else ""
    return f"HTTP status {status}{word}" + (f": {said}" if said else "")


def _debugged(error: BaseException) -> str:
    return str(error).partition(_DEBUG)[2]


def _why_silent(server: str, debugged: str) -> str:
    """Returns why nothing came of a request: only what is for debugging tells it."""
    if found := _BAD_CERTIFICATE.search(debugged):
        return (
            f"{server}: its certificate is not trusted here ({found[1]}): SSL_CERT_FILE names a "
            "file of those that are"
        )
    found = _WHY_SILENT.search(debugged)
    return f"{server} does not answer: {_cut(found[1]) if found else 'error sending request'}"


def _code_of(told: str) -> str:
    """Returns a store's own word for an error, such as `NoSuchKey`; empty for none."""
    if found := _REFUSED_DELETE.search(told):
        return found[2]
    return found[1] if (found := _CODE.search(told)) else ""


def _advice(told: str, code: str, status: int | None) -> str:
    if code in _REGION_CODES or _REDIRECT in told:
        region = _REGION.search(told)
        named = f" {region[1] or region[2]}" if region else ", which aws s3api head-bucket tells"
        return f"the bucket is in another region: set AWS_REGION to its own{named}"
    for detail, advice in _DETAILS.items():
        if detail in told:
            return advice
    if code in _ADVICE:
        return _ADVICE[code]
    is_denied = code in _DENIED_CODES or (not code and status == 403)
    if is_denied and not _KEPT.search(_said(told)):
        return f"these credentials may not {_operation(told)}: grant it, or check the name"
    if status == 401:
        return _WRONG_CREDENTIALS
    return ""


def _operation(told: str) -> str:
    if any(word in told for word in _LISTING):
        return "list what is there"
    if "bulk delete" in told or "?delete" in told:
        return "delete it"
    found = _REQUEST.search(told)
    return f"{_VERBS.get(found[1], 'reach') if found else 'reach'} it"


def _said(told: str) -> str:
    """Returns the words of the store, or else those of the library that follow the request."""
    if found := _MESSAGE.search(told) or _JSON_MESSAGE.search(told):
        said = found[1]
    elif _STATUS.search(told):
        return ""
    else:
        said = re.sub(r"^Generic \w+ error: ", "", told)
        said = re.sub(r"^(?:Error performing \w+ request: )?Error performing .*? - ", "", said)
    return _cut(said)


def _cut(said: str) -> str:
    return printable(without_secrets(said.strip().split("\n", 1)[0]))[:200]
