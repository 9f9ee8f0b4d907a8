"""Errors of stores, whichever library raised them: whether they may pass, and how to tell an
operator.
"""

from __future__ import annotations

import errno
import http
import http.client
import re

import obstore.exceptions
import urllib3.exceptions
from apache_beam.io.filesystem import BeamIOError
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from transforms.media.text import printable, without_secrets
from transforms.storage import answers

_FINAL_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
    }
)
STORE_ERRORS = (
    OSError,  # also those of requests
    EOFError,
    google_errors.GoogleAPIError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    obstore.exceptions.BaseError,
)
_REQUEST = re.compile(r"^[A-Z]+ https?://\S+:\s*")
_JSON_MESSAGE = re.compile(r'^\{.*?"message": "((?:[^"\\]|\\.)*)"', re.DOTALL)


def is_passing(error: object) -> bool:
    """Whether another try, a little later, may go well."""
    if isinstance(error, int):  # Beam's file systems give the status of a batch's parts bare
        return error in (408, 429) or error >= 500
    if isinstance(error, BeamIOError):
        causes = list((error.exception_details or {}).values())
        return bool(causes) and all(is_passing(cause) for cause in causes)
    if isinstance(error, google_errors.GoogleAPICallError):
        return error.code is None or is_passing(int(error.code))
    if isinstance(error, InvalidResponse):
        return is_passing(int(error.response.status_code))
    if isinstance(error, BaseException) and answers.is_of_library(error):
        return answers.is_passing(error)
    if isinstance(error, OSError):
        return error.errno not in _FINAL_ERRNOS and not isinstance(
            error, FileNotFoundError | PermissionError
        )
    # Not google's RetryError: behind it lies a long row of tries already.
    passing = (
        GoogleAuthError
        | EOFError
        | DataCorruption
        | urllib3.exceptions.HTTPError
        | http.client.HTTPException
    )
    return isinstance(error, passing)


def is_refusal(error: object) -> bool:
    """Whether a store said that it may not be done: for want of a permission, or as it keeps an
    object for a time (403 in Cloud Storage and S3, 409 in Azure).
    """
    if isinstance(error, int):
        return error in (http.HTTPStatus.FORBIDDEN, http.HTTPStatus.CONFLICT)
    if isinstance(error, BeamIOError):
        causes = list((error.exception_details or {}).values())
        return bool(causes) and all(is_refusal(cause) for cause in causes)
    if isinstance(error, BaseException) and answers.is_of_library(error):
        return answers.is_refusal(error) and not answers.is_passing(error)
    if isinstance(error, OSError):
        return error.errno in (errno.EACCES, errno.EPERM) or isinstance(error, PermissionError)
    status = status_of(error)
    return status is not None and is_refusal(status)


def hide_secrets(error: BaseException) -> None:
    """Takes out of an error what the traceback of one that it is the cause of must not have."""
    if answers.is_of_library(error):
        answers.hide_secrets(error)


def was_retried(error: object) -> bool:
    """Whether a store's own library has tried again already, for as long as it goes on."""
    return isinstance(error, google_errors.RetryError)


def status_of(error: object) -> int | None:
    """Returns the HTTP status that a store answered with; None where it is not told."""
    if isinstance(error, google_errors.GoogleAPICallError) and error.code is not None:
        return int(error.code)
    if isinstance(error, BaseException) and answers.is_of_library(error):
        return answers.status_of(error)
    return None


def describe_error(error: BaseException) -> str:
    """Returns an error in one line, without a query string, a token or a payload."""
    if isinstance(error, BeamIOError) and error.exception_details:
        return "; ".join(
            sorted(
                {
                    _describe_cause(cause)
                    for cause in error.exception_details.values()
                    if cause is not None
                }
            )
        )
    if isinstance(error, google_errors.RetryError) and error.cause is not None:
        return describe_error(error.cause)
    if isinstance(error, InvalidResponse):
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, google_errors.GoogleAPICallError):
        # The message of others begins with the request, and may end in the answer as it came.
        said = _REQUEST.sub("", error.message or "")
        told = _JSON_MESSAGE.search(said)
        said = printable(without_secrets((told[1] if told else said).split("\n", 1)[0]))[:200]
        # gRPC has errors that HTTP has no status for.
        status = None if error.code is None else f"HTTP status {int(error.code)}"
        return ": ".join(filter(None, (status, said.strip()))) or type(error).__name__
    if answers.is_of_library(error):
        return answers.describe(error)
    if isinstance(error, OSError) and error.strerror:
        return printable(without_secrets(error.strerror))
    # Those of google-auth have all of an answer beside what they say.
    first = error.args[0] if isinstance(error, GoogleAuthError) and error.args else error
    text = printable(without_secrets(str(first)).split("\n", 1)[0])[:300]
    return text or type(error).__name__


def _describe_cause(cause: object) -> str:
    return describe_error(cause) if isinstance(cause, BaseException) else f"HTTP status {cause}"
