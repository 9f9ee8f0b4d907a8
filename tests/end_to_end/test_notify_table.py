"""Who is told: what a job profile and a command line may say of it, and that no secret is told."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipelines import targets
from pipelines.accounts import check_secrets_reach_workers
from pipelines.check_targets import check_targets
from pipelines.job_profile import load_profile
from pipelines.options import RunArguments, parse_arguments
from pipelines.targets import NotifyTable
from tests.support.command import SAMPLE, callpress
from transforms.media.errors import ConfigError
from transforms.media.settings import settings_fingerprint
from transforms.notices.target_secrets import read_secrets
from transforms.storage import secrets
from transforms.storage.storage_options import StorageOptions, use
from transforms.targets import Notify, Target, TargetKind

KEY = "whsec_" + "QUJD" * 8
ONE = """
[notify]
budget = "90s"
url_base = "https://media.example.com/calls/"
secret = "env:S"
webhook_keys = ["env:K1", "file:~/k2"]
timeout = "10s"

[notify.targets.crm]
to = "https://CRM.example.com/hook"
api_key = "env:A"
webhook_keys = "gcp-secret:projects/p/secrets/k/versions/2"
timeout = "3s"
at_a_time = 4

[notify.targets.search]
to = "gcp-secret:projects/p/secrets/url/versions/latest"

[notify.targets.bus]
to = "pubsub:projects/p-1/topics/calls"

[notify.targets."nightly files"]
to = "gs://told/events/"
"""


def _table(folder: Path, text: str) -> NotifyTable:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return load_profile(str(path)).notify


def _notify(*named: str, table: NotifyTable | None = None, keeps_secrets: bool = True) -> Notify:
    return targets.notify_of(table or NotifyTable(), named, None, keeps_secrets=keeps_secrets)


def test_table_says_who_is_told_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    keys = ("env:K1", "file:/home/me/k2")
    found = _notify(table=_table(tmp_path, ONE))

    assert found == Notify(
        budget_seconds=90.0,
        url_base="https://media.example.com/calls",
        targets=(
            Target(
                name="crm",
                kind=TargetKind.HTTPS,
                place="https://crm.example.com/hook",
                secret="env:S",
                api_key="env:A",
                webhook_keys=("gcp-secret:projects/p/secrets/k/versions/2",),
                timeout_seconds=3.0,
                at_a_time=4,
            ),
            Target(
                name="search",
                kind=TargetKind.HTTPS,
                place="",
                address="gcp-secret:projects/p/secrets/url/versions/latest",
                secret="env:S",
                webhook_keys=keys,
                timeout_seconds=10.0,
            ),
            Target(
                name="bus",
                kind=TargetKind.PUBSUB,
                place="projects/p-1/topics/calls",
                timeout_seconds=10.0,
            ),
            Target(name="nightly files", kind=TargetKind.JSON_LINES, place="gs://told/events"),
        ),
    )
    assert targets.folders_of(found) == ("gs://told/events",)


def test_table_changes_no_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(ONE, encoding="utf-8")
    assert settings_fingerprint(load_profile(str(path)).settings) == settings_fingerprint(
        load_profile(None).settings
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('notify = "planted"', "notify: expected a table, [notify]"),
        ('[notifi.targets.crm]\nto = "planted"', "unknown key notifi, did you mean notify?"),
        ('[notify]\ntarget = "planted"', "unknown key target, did you mean targets?"),
        ('[notify]\nsecret = "planted"', "notify: secret is to be named, not spelled out"),
        ('[notify]\napi_key = ["planted"]', "notify: api_key: expected text"),
        (f'[notify]\nwebhook_keys = ["{KEY}"]', "webhook_keys is to be named, not spelled out"),
        ("[notify]\nwebhook_keys = [4]", "webhook_keys: expected a list of references"),
        ('[notify]\nbudget = "planted"', 'budget: expected a length of time such as "6s" or "5m"'),
        ("[notify]\nbudget = 300", "budget: expected a length of time"),
        ('[notify]\nbudget = "2d"', "0 s to 86400 s"),
        ('[notify]\ntimeout = "0s"', "timeout: expected a length of time"),
        ("[notify]\nat_a_time = 0", "at_a_time: expected a number from 1 to 256"),
        ("[notify]\nat_a_time = true", "at_a_time: expected a number from 1 to 256"),
        ('[notify]\nurl_base = "media.example.com"', "url_base media.example.com: expected https"),
        ('[notify]\nurl_base = "https://h/?k=planted"', "url_base https://h/: expected https"),
        ("[notify]\ntargets = 4", "notify.targets: expected tables, such as [notify.targets.crm]"),
        ("[notify.targets]\ncrm = 4", 'notify.targets."crm": expected a table'),
        ("[notify.targets.crm]\n", 'notify.targets."crm": to: expected text'),
        ('[notify.targets.""]\nto = "./a"', "expected a name of 1 to 200 characters"),
        ('[notify.targets."a\\u001b"]\nto = "./a"', "expected a name of 1 to 200 characters"),
        ('[notify.targets."https://h/?planted"]\nto = "./a"', "rows have the name of a target"),
        ('[notify.targets.crm]\nurl = "planted"', 'targets."crm": unknown key url, expected to'),
        ('[notify.targets.crm]\nto = "https://h/?k=planted"', "has a query or a user, expected a"),
        ('[notify.targets.crm]\nto = "https://u:planted@h/"', "has a query or a user, expected a"),
        ('[notify.targets.crm]\nto = "http://planted/"', "is no URL of an endpoint, expected http"),
        ('[notify.targets.crm]\nto = "./a"\nsecret = "env:S"', "secret: is nothing of a folder"),
        ('[notify.targets.a]\nto = "pubsub:projects/p/topics/abc"\napi_key = "env:S"',
         "api_key: is nothing of a topic, expected none"),
    ],
)  # fmt: skip
def test_table_that_cannot_be_is_told_without_its_values(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as told:
        _table(tmp_path, text)
    assert message in str(told.value)
    assert "planted" not in str(told.value)
    assert KEY not in str(told.value)


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("https://Crm.Example.com:443/hook", TargetKind.HTTPS, "https://crm.example.com/hook"),
        ("https://[2001:db8::1]:8443", TargetKind.HTTPS, "https://[2001:db8::1]:8443/"),
        ("pubsub:projects/p/topics/t-1", TargetKind.PUBSUB, "projects/p/topics/t-1"),
        ("s3://told/x/", TargetKind.JSON_LINES, "s3://told/x"),
        ("file:///told/", TargetKind.JSON_LINES, "/told"),
        ("/told", TargetKind.JSON_LINES, "/told"),
        ("./a:b", TargetKind.JSON_LINES, "CWD/a:b"),
        ("./crm.example.com/hook", TargetKind.JSON_LINES, "CWD/crm.example.com/hook"),
        ("told.jsonl", TargetKind.JSON_LINES, "CWD/told.jsonl"),
    ],
)
def test_target_is_told_by_how_it_is_spelled(
    text: str, kind: TargetKind, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = _notify(text).targets
    place = place.replace("CWD", str(tmp_path))
    assert (found.kind, found.place) == (kind, place)
    assert found.name == (text if kind is TargetKind.PUBSUB else place)
    assert not found.references


@pytest.mark.parametrize(
    "text", ["env:HOOK", "file:/run/hook", "gcp-secret:projects/p/secrets/s/versions/1"]
)
def test_reference_stands_for_a_whole_url(text: str) -> None:
    (found,) = _notify(text, keeps_secrets=False).targets
    assert (found.name, found.place, found.address) == (text, "", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://crm.example.com/", "is no URL of an endpoint, expected https://HOST"),
        ("https://crm.example.com:x/", "is no URL of an endpoint"),
        ("https:///x", "is no URL of an endpoint"),
        ("https://h/a b", "has a blank or another character that no URL has"),
        ("https://h/ü", "has a blank or another character that no URL has"),
        ("https://h/#planted", "has a fragment"),
        ("https://u:planted@h/?a b", "has a blank or another character"),
        ("sqs:queue", "is no target, expected https://HOST/PATH, pubsub:projects/PROJECT/topics"),
        ("pubsub:projects/p", "is no topic, expected pubsub:projects/PROJECT/topics/TOPIC"),
        ("pubsub:projects/p/topics/google-calls", "begins with a letter and not with goog"),
        ("pubsub:projects/p/topics/t", "with 3 to 255 letters"),
        ("crm.example.com/hook", "may be an endpoint or a folder, expected https:// or ./ before"),
        ("crm.example.com", "expected https:// or ./ before it"),
        ("10.0.0.7:8443/hook", "expected https:// or ./ before it"),
        ("gcp-secret:projects/p", "is no target, expected https://"),
        ("gs://", "names nothing, expected a path or URI"),
        ("s3://u:planted@b/x", "has a user, a query or a fragment"),
        ("azfs://a/c?sig=planted", "has a user, a query or a fragment"),
        (" https://h/p?key=planted", "has a URL within it, expected https://HOST/PATH"),
        ("'https://u:planted@h/p'", "has a URL within it"),
        ("https ://u:planted@h/p", "has a URL within it"),
        ("//u:planted@h/p", "has a URL within it"),
        ("https:/u:planted@h/p", "is no target"),
        ("https:h/p?planted", "is no target"),
        ("gs://b#planted", "has a user, a query or a fragment"),
        ("az://c/x", "of which account is not said"),
        ("", "names nothing, expected a path or URI"),
    ],
)
def test_target_that_is_none_is_one_line(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    done = callpress("run", "--input", "x", "--output", "y", "--notify", text)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("callpress: --notify ")
    assert message in done.err
    assert "planted" not in done.err


def test_url_with_a_secret_is_kept_by_the_process_that_was_given_it() -> None:
    url = "https://hooks.example.com/a?token=planted"
    (found,) = _notify(url).targets

    assert (found.name, found.place) == ("https://hooks.example.com/a",) * 2
    assert read_secrets(found).url == url
    assert "planted" not in f"{found!r}{pickle.dumps(found)!r}{read_secrets(found)!r}"
    assert _notify(url).targets == (found,)
    secrets._kept.clear()  # as in another process
    with pytest.raises(ConfigError, match="memory:1: only the process that was given it has it"):
        read_secrets(found)


def test_url_with_a_secret_is_refused_where_others_send() -> None:
    with pytest.raises(ConfigError, match="has a query or a user, and all who may see") as told:
        _notify("https://h.example.com/?token=planted", keeps_secrets=False)
    assert "planted" not in str(told.value)
    parsed = parse_arguments(
        ["run", "--input", "x", "--output", "y", "--notify", "https://h/?token=planted"]
    )
    assert isinstance(parsed, RunArguments)
    assert "planted" not in repr(parsed)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("./a", "a"), "a: there are two targets of this name"),
        (("https://h.example.com/?x=1", "https://h.example.com/?x=2"), "two targets of this name"),
        (("crm",), "crm: is a target of the profile, which is told anyway; a folder of this name"),
    ],
)
def test_no_two_targets_have_one_name(named: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _notify(*named, table=_table(tmp_path, ONE))


def test_targets_of_the_command_line_are_sent_to_as_the_profile_says(tmp_path: Path) -> None:
    (*_, found) = _notify("https://h.example.com/", table=_table(tmp_path, ONE)).targets
    assert (found.secret, found.timeout_seconds, found.at_a_time) == ("env:S", 10.0, 32)
    arguments = ["run", "--input", "x", "--output", "y", "--url-base", "https://cdn.example.com/"]
    parsed = parse_arguments(arguments)
    assert isinstance(parsed, RunArguments)
    assert parsed.url_base == "https://cdn.example.com"


# --- before any work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("webhook_keys", "QUJD" * 8, "env:V: is no key of Standard Webhooks, expected whsec_ and"),
        ("webhook_keys", "whsec_QUJD", "of 24 to 64 bytes"),
        ("webhook_keys", "whsec_" + "QUJD" * 30, "of 24 to 64 bytes"),
        ("webhook_keys", "whsec_" + "QUJD" * 8 + "A", "is no key of Standard Webhooks"),
        ("webhook_keys", KEY, None),
        ("secret", "", "env:V: is empty, expected a secret"),
        ("secret", "a b", "env:V: has a blank"),
        ("api_key", None, "env:V: the environment of this process has no such variable"),
        ("address", "http://planted.example.com/", "env:V: is no URL of an endpoint"),
        ("address", "https://planted.example.com/?x", None),
        ("address", "https://10.1.2.3/?planted", "leads to [hidden], which is no public address"),
    ],
)
def test_secrets_are_looked_at_before_any_work(
    key: str, value: str | None, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("V", raising=False)
    if value is not None:
        monkeypatch.setenv("V", value)
    place = "" if key == "address" else "https://h.example.com/"
    given = {key: ("env:V",) if key == "webhook_keys" else "env:V"}
    target = Target(name="crm", kind=TargetKind.HTTPS, place=place, **given)  # type: ignore[arg-type]

    def check() -> None:
        check_secrets_reach_workers([target], has_workers_here=True, secrets_in_image=False)
        check_targets(Notify(targets=(target,)), "/catalog")

    if message is None:
        check()
        return
    with pytest.raises(ConfigError) as told:
        check()
    assert str(told.value).startswith("target crm: ")
    assert message in str(told.value)
    assert "planted" not in str(told.value)


def test_secrets_of_this_machine_do_not_reach_workers_elsewhere() -> None:
    target = Target(name="crm", kind=TargetKind.HTTPS, place="", address="env:HOOK")
    with pytest.raises(ConfigError, match=r"^target crm: env:HOOK is on this machine"):
        check_secrets_reach_workers([target], has_workers_here=False, secrets_in_image=False)
    check_secrets_reach_workers([target], has_workers_here=False, secrets_in_image=True)
    check_targets(Notify(targets=(target,)), "/catalog", reads_secrets=False)


def test_private_address_is_told_at_start_unless_it_is_allowed() -> None:
    found = _notify("https://192.168.1.2/hook")
    with pytest.raises(ConfigError, match="which is no public address"):
        check_targets(found, "/catalog")
    use(StorageOptions(allow_private_addresses=True))
    check_targets(found, "/catalog")
    use(StorageOptions(named_hosts=targets.hosts_of(["https://192.168.1.2/hook"])))
    check_targets(found, "/catalog")


@pytest.mark.parametrize("below", ["catalog/notices", "catalog/results/x", "recordings", "catalog"])
def test_folder_lies_apart_from_what_a_run_makes(below: str, tmp_path: Path) -> None:
    done = callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out", "--dry-run"),
        *("--notify", tmp_path / "out" / below),
    )
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.endswith(", expected another folder\n")


def test_folder_that_workers_elsewhere_cannot_reach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is on this machine, where workers elsewhere cannot"):
        check_targets(_notify(str(tmp_path)), "gs://b/catalog", shares_this_machine=False)


def test_topic_needs_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = _notify("pubsub:projects/p/topics/abc")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"^target pubsub:projects/p/topics/abc: GOOGLE_APPLICAT"):
        check_targets(found, "/catalog")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    check_targets(found, "/catalog")


def test_a_dry_run_says_who_would_be_told_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "told"
    done = callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out", "--dry-run"),
        *("--notify", folder, "--notify", "https://127.0.0.1/a?planted=1"),
    )
    assert done.status == 0, done.err
    assert done.out.endswith(f"would tell {folder}, https://127.0.0.1/a of what is made\n")
    assert "planted" not in done.out + done.err
    assert not folder.exists()


def test_folder_that_cannot_be_written_ends_the_run_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "told").write_bytes(b"")
    done = callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out"),
        *("--notify", tmp_path / "told"),
    )
    assert done.status == 1
    assert f"target {tmp_path}/told: cannot be written: " in done.err
    assert not (tmp_path / "out" / "recordings").exists()
