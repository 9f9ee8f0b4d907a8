"""Google's credentials and storage client, looked for once per process, and without Beam's 20 s of
retries where there are none.
"""

from __future__ import annotations

import functools

import google.auth
from apache_beam.internal.gcp import auth as beam_auth
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions
from google.auth.credentials import AnonymousCredentials, Signing
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import Request
from google.cloud import storage

from transforms.media.errors import ConfigError
from transforms.storage import google_account


@functools.cache
def have_credentials() -> bool:
    """Whether this process has Google credentials. Where it has none, Beam is told to go on
    anonymously at once.
    """
    if not (google_account.has_emulator() or google_account.why_no_credentials()):
        try:
            google.auth.default()
            return True
        except DefaultCredentialsError:
            pass
    # Beam asks four times with growing pauses before it goes on anonymously by itself; there is no
    # public switch.
    beam_auth._Credentials._credentials_init = True
    return False


@functools.cache
def storage_client() -> storage.Client:
    """Returns this process's client, made as Beam makes its own: with its options for impersonation
    and audit entries.
    """
    if have_credentials():
        return gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions())
    return storage.Client(project="anonymous", credentials=AnonymousCredentials())


def signer() -> dict[str, str]:
    """Returns what Google's library is to be told so that it signs a link; nothing where this
    process's credentials can sign by themselves.

    Raises:
      ConfigError: they are of no service account.
    """
    found = storage_client()._credentials
    if isinstance(found, Signing):
        return {}
    # Where a machine has a service account it has no key of it, but a token with which Google is
    # asked to sign (IAM signBlob).
    if not hasattr(found, "service_account_email"):
        raise ConfigError(
            "gs://: these Google credentials can sign no links, expected those of a service "
            "account: GOOGLE_APPLICATION_CREDENTIALS with its key file, or gcloud auth "
            "application-default login --impersonate-service-account=ACCOUNT"
        )
    if not found.valid:
        found.refresh(Request())
    return {"service_account_email": found.service_account_email, "access_token": found.token}
