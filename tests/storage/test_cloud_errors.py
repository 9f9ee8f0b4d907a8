"""What an operator is told when S3 or Azure refuse: one line that says what to do, soon, and
without any key.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from tests.support.cloud_servers import CloudServer, forget_clients
from tests.support.storage_proxy import Faults
from transforms.media.errors import StorageError
from transforms.storage import objects
from transforms.storage.storage_options import StorageOptions, StoreAccount, use

SECRET = "SECRET0123456789SECRET0123456789"
pytestmark = pytest.mark.usefixtures("cloud_faults")


def _xml(code: str, message: str = "As the store says.", more: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}\nRequestId:{SECRET}</Message>{more}</Error>"
    ).encode()


_MOTO = pytest.mark.parametrize("cloud", ["moto"], indirect=True)
_AZURITE = pytest.mark.parametrize("cloud", ["azurite"], indirect=True)


def _read(place: str) -> object:
    return objects.read_bytes(f"{place}/x")


def _open(place: str) -> object:
    return objects.open_input(f"{place}/x")


def _look(place: str) -> object:
    """By HEAD first, whose answer has no body to tell why."""
    return objects.match(f"{place}/x")


def _list(place: str) -> object:
    return objects.list_below(place)


def _write(place: str) -> object:
    objects.write_bytes(f"{place}/x", b"x")
    return None


def _refused(
    place: str, faults: Faults, operation: Callable[[str], object], status: int, body: bytes
) -> str:
    """Returns what is told of a refusal."""
    faults.unavailable_ratio, faults.refusal = 1.0, (status, body)

    with pytest.raises(StorageError) as told:
        operation(place)

    assert faults.counts["requests"] <= 2  # nothing is tried again
    message = str(told.value)
    assert "\n" not in message
    assert "SECRET" not in message
    assert message.startswith(place)
    return message.partition(": ")[2]


_S3 = [
    (403, _xml("InvalidAccessKeyId", more=f"<AWSAccessKeyId>{SECRET}</AWSAccessKeyId>"),
     "HTTP status 403 (InvalidAccessKeyId): the store does not know these credentials: check"),
    (403, _xml("SignatureDoesNotMatch", more=f"<StringToSign>{SECRET}</StringToSign>"),
     "HTTP status 403 (SignatureDoesNotMatch): the store does not know these credentials: check"),
    (403, _xml("RequestTimeTooSkewed"),
     "HTTP status 403 (RequestTimeTooSkewed): the clock of this machine is wrong: set it"),
    (400, _xml("ExpiredToken", more=f"<Token-0>{SECRET}</Token-0>"),
     "HTTP status 400 (ExpiredToken): the credentials have expired: get new ones"),
    (400, _xml("AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"),
     "HTTP status 400 (AuthorizationHeaderMalformed): the bucket is in another region: set "
     "AWS_REGION to its own eu-west-3"),
    (404, _xml("NoSuchBucket"), "HTTP status 404 (NoSuchBucket): there is no such bucket"),
]  # fmt: skip


@_MOTO
@pytest.mark.parametrize("operation", [_read, _look, _list, _write])
@pytest.mark.parametrize(("status", "body", "expected"), _S3, ids=lambda each: str(each)[:30])
def test_refusal_of_s3_says_what_to_do(
    cloud_place: str,
    cloud_faults: Faults,
    operation: Callable[[str], object],
    status: int,
    body: bytes,
    expected: str,
) -> None:
    assert _refused(cloud_place, cloud_faults, operation, status, body).startswith(expected)


@_MOTO
def test_redirect_to_another_region_says_what_to_do(cloud_place: str, cloud_faults: Faults) -> None:
    told = _refused(cloud_place, cloud_faults, _list, 301, _xml("PermanentRedirect"))

    assert "the bucket is in another region: set AWS_REGION to its own" in told


@_MOTO
@pytest.mark.parametrize(
    ("operation", "verb"),
    [
        (_read, "read it"),
        (_open, "read it"),
        (_look, "read it"),
        (_list, "list what is there"),
        (_write, "write it"),
    ],
)
def test_permission_that_is_missing_is_named(
    cloud_place: str, cloud_faults: Faults, operation: Callable[[str], object], verb: str
) -> None:
    told = _refused(cloud_place, cloud_faults, operation, 403, _xml("AccessDenied"))

    assert told == f"HTTP status 403 (AccessDenied): these credentials may not {verb}: grant it, " \
        "or check the name"  # fmt: skip


_AZURE = [
    (403, _xml("AuthenticationFailed",
               more=f"<AuthenticationErrorDetail>{SECRET}</AuthenticationErrorDetail>"),
     "HTTP status 403 (AuthenticationFailed): the store does not know these credentials: check"),
    (403, _xml("AuthenticationFailed",
               more=f"<Detail>Request date header too old: 'Sun, {SECRET}'</Detail>"),
     "HTTP status 403 (AuthenticationFailed): the clock of this machine is wrong: set it"),
    (403, _xml("AuthenticationFailed",
               more=f"<Detail>Signature not valid in the specified time frame: {SECRET}</Detail>"),
     "HTTP status 403 (AuthenticationFailed): the credentials have expired: get new ones"),
    (403, _xml("AuthorizationPermissionMismatch"),
     "HTTP status 403 (AuthorizationPermissionMismatch): these credentials may not "),
    (401, _xml("InvalidAuthenticationInfo"),
     "HTTP status 401 (InvalidAuthenticationInfo): the store does not know these credentials"),
    (404, _xml("ContainerNotFound"),
     "HTTP status 404 (ContainerNotFound): there is no such container"),
]  # fmt: skip


@_AZURITE
@pytest.mark.parametrize("operation", [_read, _look, _list, _write])
@pytest.mark.parametrize(("status", "body", "expected"), _AZURE, ids=lambda each: str(each)[:30])
def test_refusal_of_azure_says_what_to_do(
    cloud_place: str,
    cloud_faults: Faults,
    operation: Callable[[str], object],
    status: int,
    body: bytes,
    expected: str,
) -> None:
    assert _refused(cloud_place, cloud_faults, operation, status, body).startswith(expected)


@_MOTO
def test_delete_that_is_refused_is_told(cloud_place: str, cloud_faults: Faults) -> None:
    """A bucket with object lock: the answer is 200, and says so of each object."""
    key = f"{cloud_place.removeprefix('s3://calls/')}/x"
    body = (
        f'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error><Key>{key}</Key>'
        "<Code>AccessDenied</Code><Message>Object is WORM protected</Message></Error>"
        "</DeleteResult>"
    )

    told = _refused(
        cloud_place, cloud_faults, lambda place: objects.delete(f"{place}/x"), 200, body.encode()
    )

    assert told == "it may not be deleted (AccessDenied): Object is WORM protected"


@_AZURITE
def test_real_server_refuses_a_wrong_key_and_signature(
    cloud: CloudServer, cloud_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sas = f"sv=2021-12-02&sr=c&sp=rwdl&se=2099-01-01T00%3A00%3A00Z&sig={SECRET}"
    for name, value in (("AZURE_STORAGE_KEY", SECRET), ("AZURE_STORAGE_SAS_TOKEN", sas)):
        monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
        monkeypatch.setenv(name, value)
        forget_clients(cloud)
        for operation in (_read, _open, _list, _write):
            with pytest.raises(StorageError, match="does not know these credentials") as told:
                operation(cloud_place)
            assert "SECRET" not in str(told.value)
            assert "\n" not in str(told.value)


@_AZURITE
def test_key_that_is_none_is_told_without_it(
    cloud: CloudServer, cloud_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "SECRET!!!")
    forget_clients(cloud)

    with pytest.raises(StorageError, match="Invalid Access Key") as told:
        _read(cloud_place)

    assert "SECRET" not in str(told.value)


def test_two_accounts_of_one_scheme_are_told_apart(
    cloud: CloudServer, cloud_faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the account of the longest place: here one that leads nowhere."""
    objects.write_bytes(f"{cloud.base}calls/mine/x", b"x")
    place = f"{cloud.base}calls/theirs"
    monkeypatch.setattr("transforms.storage.storage_options._options", StorageOptions())
    use(StorageOptions(accounts=(StoreAccount(place=place, endpoint="http://127.0.0.1:1"),)))

    assert objects.read_bytes(f"{cloud.base}calls/mine/x") == b"x"
    with pytest.raises(
        StorageError, match=r"http://127\.0\.0\.1:1 does not answer: Connection refused"
    ):
        objects.read_bytes(f"{place}/x")


@pytest.mark.parametrize("operation", [_read, _list, _write])
@pytest.mark.parametrize("status", [403, 400])
def test_request_that_an_answer_repeats_is_in_no_traceback(
    operation: Callable[[str], object], status: int, cloud_place: str, cloud_faults: Faults
) -> None:
    """Engines elsewhere log the whole chain of errors."""
    request = f"GET /calls?a=1\nx-amz-security-token:{SECRET}\n"
    repeated = "".join(
        f"<{name}>{request}</{name}>"
        for name in ("StringToSign", "CanonicalRequest", "CanonicalRequestBytes")
    )
    address = f"no such thing: /calls/x?sv=1&sig={SECRET}%3D&comp=list"
    cloud_faults.unavailable_ratio = 1.0
    body = f"<Error><Code>Odd</Code><Message>{address}</Message>{repeated}</Error>"
    cloud_faults.refusal = (status, body.encode())

    with pytest.raises(StorageError) as told:
        operation(cloud_place)

    assert "Odd" in str(told.value.__cause__)
    assert SECRET not in "".join(traceback.format_exception(told.value))
