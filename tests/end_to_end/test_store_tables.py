"""Tables of stores in a job profile: what they may say, and that no secret is told, counted or sent
anywhere.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from dataclasses import fields
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import press
from pipelines.accounts import check_secrets_reach_workers
from pipelines.job_profile import load_profile
from pipelines.runners.beam import BeamEngine
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.cloud_servers import AZURITE_KEY, CloudServer, forget_clients
from tests.support.command import callpress
from tests.support.job_run import JobRun
from tests.support.storage_proxy import Faults, proxied
from tests.support.translation import payloads
from transforms.filters import Filters
from transforms.media.errors import ConfigError
from transforms.media.settings import PressSettings, settings_fingerprint
from transforms.sources.manifests.reading import ManifestSource
from transforms.storage import objects, secrets, storage_options
from transforms.storage.storage_options import (
    ALL_KEYS,
    SECRET_KEYS,
    StorageOptions,
    StoreAccount,
)

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


def _profile(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my.toml"
    path.write_text(text)
    return str(path)


def test_tables_are_read_beside_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ours")
    profile = load_profile(
        _profile(
            tmp_path,
            """
            max_failed_ratio = 0.25

            [stores."S3://theirs/raw/"]
            endpoint = "https://minio.example:9000"
            region = "eu-central-1"
            path_style = true
            access_key_id = "env:THEIR_KEY_ID"
            secret_access_key = "file:secrets/theirs"
            session_token = "gcp-secret:projects/p-1/secrets/token/versions/3"

            [stores."s3://ours"]
            profile = "pressing"

            [stores."az://container"]
            account_key = "file:///run/secrets/azure"

            [stores."azfs://other"]
            sas_token = "gcp-secret:projects/p-1/secrets/sas/versions/latest"
            """,
        )
    )

    assert profile.settings == PressSettings(max_failed_ratio=0.25)
    assert profile.accounts == (
        StoreAccount(
            place="s3://theirs/raw",
            endpoint="https://minio.example:9000",
            region="eu-central-1",
            path_style=True,
            access_key_id="env:THEIR_KEY_ID",
            secret_access_key=f"file:{tmp_path}/secrets/theirs",
            session_token="gcp-secret:projects/p-1/secrets/token/versions/3",
        ),
        StoreAccount(place="s3://ours", profile="pressing"),
        StoreAccount(place="azfs://ours/container", account_key="file:/run/secrets/azure"),
        StoreAccount(
            place="azfs://other",
            sas_token="gcp-secret:projects/p-1/secrets/sas/versions/latest",
        ),
    )
    options = StorageOptions(accounts=profile.accounts)
    for uri, place in [
        ("s3://theirs/raw/**.tar.gz", "s3://theirs/raw"),
        ("s3://theirs/rawer/a", None),
        ("s3://ours", "s3://ours"),
        ("azfs://ours/container/a", "azfs://ours/container"),
        ("azfs://ours/another/a", None),
        ("azfs://other/any/a", "azfs://other"),
        ("gs://ours/a", None),
    ]:
        account = options.account_of(uri)
        assert (account and account.place) == place, uri


def test_tables_change_no_fingerprint(tmp_path: Path) -> None:
    plain = load_profile(_profile(tmp_path, "max_failed_ratio = 0.25\n")).settings
    beside = load_profile(
        _profile(tmp_path, 'max_failed_ratio = 0.25\n[stores."s3://a"]\nregion = "eu-west-1"\n')
    ).settings

    assert settings_fingerprint(plain) == settings_fingerprint(beside)


def test_keys_are_the_fields_of_an_account() -> None:
    assert {*ALL_KEYS, "place"} == {field.name for field in fields(StoreAccount)}
    assert set(SECRET_KEYS) < set(ALL_KEYS)


_KEYS = 'access_key_id = "env:A"\nsecret_access_key = "env:B"\n'
_SPELLED = "is to be named, not spelled out, expected env:NAME, file:PATH or gcp-secret:projects/"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[stores."s3://b"]\nsecret_acces_key = "{SECRET}"', "secret_acces_key, did you mean sec"),
        (f'[stores."s3://b"]\nblah = "{SECRET}"', "unknown key blah, expected endpoint, region"),
        (f'[stores."s3://b"]\nsecret_access_key = "{SECRET}"', f"secret_access_key {_SPELLED}"),
        (f'[stores."s3://b"]\naccess_key_id = "{SECRET}"', f"access_key_id {_SPELLED}"),
        (f'[stores."s3://b"]\nsession_token = "Env:{SECRET}"', f"session_token {_SPELLED}"),
        (f'[stores."s3://b"]\nsession_token = "env:/{SECRET}"', f"session_token {_SPELLED}"),
        (f'[stores."azfs://a/b"]\naccount_key = "{SECRET}=="', f"account_key {_SPELLED}"),
        (f'[stores."azfs://a/b"]\nsas_token = "?sv=1&sig={SECRET}"', f"sas_token {_SPELLED}"),
        ('[stores."azfs://a"]\nsas_token = "gcp-secret:p/x/1"', f"sas_token {_SPELLED}"),
        (f'[stores."s3://b"]\n{_KEYS}account_key = "env:C"', "account_key is none of s3://, expe"),
        ('[stores."azfs://a/b"]\nregion = "eu"', "region is none of azfs://, expected one of endp"),
        ('[stores."s3://b"]\naccess_key_id = "env:A"', "secret_access_key are needed together"),
        (
            '[stores."s3://b"]\nsession_token = "env:A"',
            "session_token is needed with access_key_id",
        ),
        (f'[stores."s3://b"]\n{_KEYS}profile = "p"', "profile and access_key_id exclude each oth"),
        (
            '[stores."azfs://a"]\naccount_key = "env:A"\nsas_token = "env:B"',
            "account_key and sas_token exclude each other",
        ),
        ('[stores."s3://b"]\npath_style = "yes"', "path_style: expected true or false"),
        ('[stores."s3://b"]\nregion = 1', "region: expected text"),
        (f'[stores."s3://b"]\nregion = ["{SECRET}"]', "region: expected text"),
        ('[stores."s3://b"]\nregion = ""', "region: expected text"),
        (f'[stores."s3://b"]\nendpoint = "https://u:{SECRET}@h/"', "endpoint is no address, expec"),
        (f'[stores."s3://b"]\nendpoint = "https://h/?k={SECRET}"', "endpoint is no address, expec"),
        ('[stores."s3://b"]\nendpoint = "minio:9000"', "endpoint is no address, expected https://"),
        (
            '[stores."gs://b"]\nendpoint = "https://h"',
            "gs:// is reached with Google's own credenti",
        ),
        ('[stores."b"]\nregion = "eu"', "is no place of a store, expected s3://BUCKET, azfs://ACC"),
        ('[stores."/raw"]\nregion = "eu"', "is no place of a store"),
        ('[stores."s3://b/*"]\nregion = "eu"', "is no place of a store"),
        ('[stores."s3:///b"]\nregion = "eu"', "is no place of a store"),
        ('[stores."https://h/b"]\nregion = "eu"', "is no place of a store"),
        (f'[stores."https://u:{SECRET}@h/b"]\nregion = "eu"', "is no place of a store"),
        (f'[stores."azfs://a/b?sig={SECRET}"]\nsas_token = "env:A"', "is no place of a store"),
        ('[stores."az://c"]\nsas_token = "env:A"', "or the variable AZURE_STORAGE_ACCOUNT"),
        ('[stores."abfss://c@acc.dfs.core.windows.net/x"]', "expected azfs://acc/c/x"),
        ('[stores."s3://b"]\n[stores."s3://b/"]', '"s3://b/": has two tables, expected one'),
        (f'stores = "{SECRET}"', 'stores: expected tables, such as [stores."s3://bucket"]'),
        (f'[stores]\n"s3://b" = "{SECRET}"', '"s3://b": expected a table, such as [stores."s3://b'),
        (f'[stores."s3://b"]\nsecret_access_key = "{SECRET}', "not TOML"),
    ],
)
def test_table_that_cannot_be_is_one_line_without_the_secret(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    config = _profile(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        load_profile(config)

    assert str(refused.value).startswith(f"--config {config}: ")
    assert message in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_worker_uses_what_the_launcher_does(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_SECRET", SECRET)
    account = StoreAccount(
        place="s3://theirs", access_key_id="env:THEIR_ID", secret_access_key="env:THEIR_SECRET"
    )
    options = StorageOptions(accounts=(account,), named_hosts=frozenset({"b:1", "a:1"}))
    storage_options.use(options)
    job = context.changed(storage_options=storage_options.current()).job
    pickled = pickle.dumps(job)
    storage_options.use(StorageOptions())

    assert pickle.loads(pickled) == job
    assert storage_options.current() == options
    assert SECRET.encode() not in pickled


_AT_NO_STORE = {
    "transforms.catalog.hashed_keys.hash_of",
    "transforms.composites.find_archive_rows._GatherFn",
    "transforms.list_archives._take_once",
    "transforms.list_archives.FoldersAboveFn",
    "transforms.match_filters._GatherFn",
    "transforms.match_filters._seen_in_archive",
    "transforms.match_filters._seen_in_manifest",
    "transforms.match_filters._seen_in_part",
    "transforms.read_manifests._NewestFn",
    "transforms.read_manifests._to_entry",
    "transforms.recall_archives._ask_for_earlier",
    "transforms.skip_processed._key_by_date",
    "transforms.composites.merge_rows._key_by_partition",
    "transforms.recovery.take_up.shares_of",
    "transforms.take_up_completed._after",
    "transforms.take_up_completed._choose",
    "transforms.take_up_completed._count_archive",
    "transforms.take_up_completed._nothing",
    "transforms.take_up_completed._sum",
    "transforms.write_catalog._SumTalliesFn",
    "transforms.write_catalog._failure_order",
    "transforms.write_catalog._tally_archive",
    "transforms.write_catalog._tally_call",
    "transforms.write_catalog._tally_passed_over",
}
"""What works with its elements alone. A new step that touches a store has the job instead."""


def _functions_in(content: bytes) -> set[str]:
    """Returns the functions and classes of ours that pickled bytes name."""
    found, texts = set(), [""]
    for code, value, _ in pickletools.genops(content):
        if code.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif isinstance(value, str):
            texts.append(value)
    return {name for name in found if re.match(r"transforms\.(?!filters|elements|bounds)", name)}


def test_no_payload_has_a_secret_and_each_step_at_a_store_has_the_accounts(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may be given one step and no other: it knows the accounts by that alone."""
    monkeypatch.setenv("THEIR_SECRET", SECRET)
    account = StoreAccount(
        place="s3://theirs", access_key_id="env:THEIR_ID", secret_access_key="env:THEIR_SECRET"
    )
    job = context.changed(
        storage_options=StorageOptions(accounts=(account,)),
        filters=Filters(calls=("default:a",)),
        manifests=(ManifestSource(where="/manifests/a.json", shown="a.json"),),
        copy_raw_uri="/copies",
    ).job
    assert secrets.read("env:THEIR_SECRET") == SECRET
    pipeline = beam.Pipeline()
    press.build(pipeline, ["/raw/*"], job)
    found = [each for each in payloads(pipeline.to_runner_api()) if each.is_packed]

    without = set()
    for each in found:
        assert SECRET.encode() not in each.content, each.step
        if b"env:THEIR_SECRET" not in each.content:
            without |= _functions_in(each.content)
    assert len(found) > 300
    assert sorted(without - _AT_NO_STORE) == []


@pytest.mark.parametrize(
    ("reference", "where"), [("env:THEIRS", "environment"), ("file:/run/theirs", "disks")]
)
def test_secret_of_this_machine_is_refused_where_workers_are_elsewhere(
    reference: str, where: str
) -> None:
    account = StoreAccount(place="azfs://theirs/raw", sas_token=reference)

    with pytest.raises(ConfigError) as refused:
        check_secrets_reach_workers([account], has_workers_here=False, secrets_in_image=False)
    assert str(refused.value) == (
        f'[stores."azfs://theirs/raw"]: {reference} is on this machine, and workers elsewhere do '
        f"not have its {where}: expected gcp-secret:projects/PROJECT/secrets/NAME/versions/N, or "
        "--secrets-in-image where their image has it too"
    )
    check_secrets_reach_workers([account], has_workers_here=True, secrets_in_image=False)
    check_secrets_reach_workers([account], has_workers_here=False, secrets_in_image=True)
    everywhere = StoreAccount(
        place="azfs://theirs/raw", sas_token="gcp-secret:projects/p/secrets/s/versions/1"
    )
    check_secrets_reach_workers([everywhere], has_workers_here=False, secrets_in_image=False)


@pytest.mark.parametrize("environment", ["", "LOOPBACK"])
def test_workers_of_prism_in_this_process_have_its_environment(environment: str) -> None:
    flags = [f"--environment_type={environment}"] if environment else []
    assert BeamEngine(PipelineOptions(["--runner=PrismRunner", *flags])).has_workers_here
    assert not BeamEngine(
        PipelineOptions(["--runner=PrismRunner", "--environment_type=EXTERNAL"])
    ).has_workers_here


def test_secret_that_cannot_be_read_ends_the_command_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    config = _profile(
        tmp_path,
        '[stores."s3://theirs"]\naccess_key_id = "env:NO_SUCH_SECRET"\n'
        'secret_access_key = "env:NO_SUCH_SECRET"\n',
    )
    for command in (
        ["run", "--input", "s3://theirs/raw/**", "--output", str(tmp_path / "out")],
        ["run", "--dry-run", "--input", "s3://theirs/raw/**", "--output", str(tmp_path / "out")],
        ["inspect", "s3://theirs/raw/a.zip"],
        ["verify", "--catalog", "s3://theirs/catalog"],
        ["runs", "--catalog", "s3://theirs/catalog"],
    ):
        done = callpress(*command, "--config", config)

        assert (done.status, done.out) == (2, "")
        assert done.err == (
            "callpress: env:NO_SUCH_SECRET: the environment of this process has no such variable\n"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_workers_elsewhere_are_told_of_before_any_work(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_SAS", SECRET)
    config = _profile(tmp_path, '[stores."azfs://theirs"]\nsas_token = "env:THEIR_SAS"\n')
    raw = tmp_path / "raw"
    raw.mkdir()
    command = ["run", "--input", str(raw), "--output", str(tmp_path / "out"), "--config", config]
    elsewhere = [
        "--runner=PrismRunner", "--environment_type=EXTERNAL", "--environment_config=localhost:1",
        f"--temp_location={tmp_path}/tmp",
    ]  # fmt: skip

    done = callpress(*command, *elsewhere, *flags)

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith('callpress: [stores."azfs://theirs"]: env:THEIR_SAS is on this mach')
    in_image = callpress(*command, *elsewhere, *flags, "--secrets-in-image")
    assert in_image.status == 1
    assert in_image.err.startswith("callpress: nothing to press")


def test_run_from_one_account_into_another(
    moto: CloudServer, azurite: CloudServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place is asked at its own endpoint, with its own key, and no key is told."""
    for name in moto.environment() | azurite.environment():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THEIR_ID", "theirs")
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "azure").write_text(f"{AZURITE_KEY}\n")
    moto.make_bucket("theirs")
    azurite.make_bucket("ours")
    output, results = f"{azurite.base}ours/pressed", f"{azurite.base}ours/pressed/catalog"
    with proxied(moto.url, Faults()) as theirs, proxied(azurite.url, Faults()) as ours:
        config = _profile(
            tmp_path,
            f"""
            [stores."s3://theirs"]
            endpoint = "{theirs}"
            access_key_id = "env:THEIR_ID"
            secret_access_key = "file:{tmp_path}/key"

            [stores."{azurite.base}ours"]
            endpoint = "{ours}/devstoreaccount1"
            account_key = "file:{tmp_path}/azure"
            """,
        )
        storage_options.use(StorageOptions(accounts=load_profile(config).accounts))
        forget_clients(moto)
        forget_clients(azurite)
        people = [
            Participant(
                participant_id="alice", segments=[Segment(packets=encode_opus(tone(440.0, 1.0)))]
            )
        ]
        objects.write_bytes("s3://theirs/raw/a.tar.gz", make_call_archive(people))
        told = []
        for command in (
            ["run", "--input", "s3://theirs/raw/*", "--output", output],
            ["verify", "--catalog", results],
            ["runs", "--catalog", results],
            ["inspect", "s3://theirs/raw/a.tar.gz"],
        ):
            done = callpress(
                *command, "--config", config, "-v" if command[0] == "run" else "--json"
            )
            assert done.status == 0, done.err
            told += [done.out, done.err]
        held = [objects.read_bytes(listed.path) for listed in objects.list_below(results)]
    forget_clients(moto)
    forget_clients(azurite)

    assert len(held) > 8
    for key in (SECRET, AZURITE_KEY):
        assert key not in "".join(told)
        assert not [data for data in held if key.encode() in data]
    # Without the profile nobody knows a key: one line, and no wait.
    done = callpress("verify", "--catalog", results)
    assert (done.status, done.out) == (2, "")
    assert "no Azure credentials for the account devstoreaccount1" in done.err
