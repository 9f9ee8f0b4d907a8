"""Until when links are good, as they show it themselves."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.wall_time import spell_time
from transforms.storage.link_expiry import expiry_of

AT = "2026-01-05T10:00:00.000Z"
AT_UNIX_S = 1_767_607_200


def policy(statement: object) -> str:
    """Returns a policy as CloudFront spells it in a query."""
    text = base64.b64encode(json.dumps({"Statement": statement}).encode()).decode()
    return text.translate(str.maketrans("+=/", "-_~"))


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260105%2Fus-east-1%2Fs3"
        "%2Faws4_request&X-Amz-Date=20260105T090000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=0f",
        "x-amz-signature=0f&x-amz-expires=3600&x-amz-date=20260105T090000Z",
        f"AWSAccessKeyId=AKIA&Expires={AT_UNIX_S}&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D",
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=x&X-Goog-Date=20260105T090000Z"
        "&X-Goog-Expires=3600&X-Goog-SignedHeaders=host&X-Goog-Signature=0f",
        f"GoogleAccessId=x%40y.iam.gserviceaccount.com&Expires={AT_UNIX_S}&Signature=0f",
        "sv=2024-11-04&st=2026-01-05T08%3A00%3A00Z&se=2026-01-05T10%3A00%3A00Z&sr=b&sp=r&sig=0f",
        "sv=2024-11-04&se=2026-01-05T10%3A00Z&sr=b&sp=r&sig=0f",
        f"Expires={AT_UNIX_S}&Signature=0f&Key-Pair-Id=K2",
        "Policy="
        + policy([{"Condition": {"DateLessThan": {"AWS:EpochTime": AT_UNIX_S}}}])
        + "&Signature=0f&Key-Pair-Id=K2",
    ],
    ids=["s3", "small", "s3-v2", "gcs", "gcs-v2", "sas", "sas-short", "cloudfront", "policy"],
)
def test_expiry_is_read_of_every_kind_of_signature(query: str) -> None:
    expiry = expiry_of(f"https://host.example/a.tar.gz?{query}#x")

    assert spell_time(expiry) == AT


def test_day_alone_is_its_beginning() -> None:
    assert spell_time(expiry_of("https://h/a?se=2026-01-05&sig=x")) == "2026-01-05T00:00:00.000Z"


@pytest.mark.parametrize(
    "link",
    [
        "https://h/a",
        "https://h/a?Expires=1767607200",  # nobody signed it
        "https://h/a?Signature=x",
        "https://h/a?Signature=x&Expires=soon",
        "https://h/a?Signature=x&Expires=-1",
        "https://h/a?Signature=x&Expires=1e9",
        "https://h/a?Signature=x&Expires=999999999999",
        "https://h/a?Signature=x&Expires=" + "9" * 5_000,
        "https://h/a?Signature=x&Expires=١٢٣",
        "https://h/a?X-Amz-Signature=x&X-Amz-Date=20261305T090000Z&X-Amz-Expires=1",
        "https://h/a?X-Amz-Signature=x&X-Amz-Date=20260105T090000Z",
        "https://h/a?X-Amz-Signature=x&X-Amz-Date=99991231T235959Z&X-Amz-Expires=9",
        "https://h/a?sig=x&se=never",
        "https://h/a?sig=x&se=0001-01-01T00:00:00Z",
        "https://h/a?sig=x",
        "https://h/a?Signature=x&Policy=%%%",
        "https://h/a?Signature=x&Policy=" + policy([]),
        "https://h/a?Signature=x&Policy=" + policy({"0": 1}),
        "https://h/a?Signature=x&Policy="
        + policy([{"Condition": {"DateLessThan": {"AWS:EpochTime": True}}}]),
        "https://h/a?Signature=x&Policy="
        + policy([{"Condition": {"DateLessThan": {"AWS:EpochTime": 1e300}}}]),
        "https://h/a?Signature=x&Policy=" + base64.b64encode(b"[" * 9_000).decode(),
        "https://h/a?" + "&".join(f"a{number}=1" for number in range(5_000)) + "&sig=x&se=2026",
        "gs://bucket/a?Signature=x&Expires=1767607200",
        "https://?Signature=x&Expires=1767607200",
    ],
)
def test_what_makes_no_sense_tells_nothing(link: str) -> None:
    assert expiry_of(link) is None


@given(
    st.text(),
    st.dictionaries(
        st.sampled_from(["Expires", "Signature", "Policy", "sig", "se", "X-Amz-Date",
                         "X-Amz-Expires", "X-Amz-Signature"]),
        st.text(max_size=30),
    ),
)  # fmt: skip
def test_no_text_breaks_it(path: str, fields: dict[str, str]) -> None:
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    found = expiry_of(f"https://h/{path}?{query}")

    assert found is None or spell_time(found) is not None
