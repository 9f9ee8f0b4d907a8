"""`callpress tell`: sends what targets have not taken yet.

callpress tell --catalog ./pressed/catalog --config my.toml
callpress tell --catalog gs://bucket/pressed/catalog --notify https://example.com/hook --since 7d
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

from pipelines import targets
from pipelines.accounts import check_secrets_reach_workers
from pipelines.check_targets import check_targets, prepare_folders
from pipelines.job_profile import JobProfile
from pipelines.options import EXIT_FAILED
from pipelines.tell_command import TellArguments
from pipelines.verify import tables_of
from transforms.locking.lease import holding
from transforms.media.errors import ConfigError
from transforms.notices import backfill
from transforms.notices.result import in_words
from transforms.notices.tell import Told, tell_pending
from transforms.storage import objects, storage_options, uris
from transforms.targets import USUAL_BUDGET_SECONDS


def tell(arguments: TellArguments, profile: JobProfile) -> int:
    """Sends what is pending, and says of each target what became of it; returns the exit status.

    Raises:
      ConfigError: nobody is to be told, or a target cannot be.
      NoCatalogError: there is no catalog.
      LockHeldError: a run is at work.
      CallpressError: the catalog cannot be read or written.
    """
    catalog = uris.folder(arguments.catalog)
    notify = targets.notify_of(
        profile.notify, arguments.notify, arguments.url_base, keeps_secrets=True
    )
    # A budget of nothing leaves all that runs make to this command.
    budget_seconds = notify.budget_seconds or USUAL_BUDGET_SECONDS
    notify = replace(notify, budget_seconds=budget_seconds)
    if not notify.targets:
        raise ConfigError(
            f"nobody is to be told, expected {targets.FLAG} TARGET, or --config with a profile "
            "that has [notify.targets.NAME]"
        )
    _use_options(arguments)
    objects.find_credentials([catalog])
    check_secrets_reach_workers(notify.targets, has_workers_here=True, secrets_in_image=False)
    # Where a run puts them by itself, the recordings are beside the catalog.
    output = catalog.removesuffix("/catalog") if catalog.endswith("/catalog") else None
    check_targets(notify, catalog, output)
    tables_of(catalog)
    prepare_folders(notify)
    started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    sender_id = f"tell-{started}-{secrets.token_hex(3)}"
    with holding(catalog, sender_id) as lease:
        if arguments.since_unix_ns is not None:
            since, now = arguments.since_unix_ns, time.time_ns()
            backfill.add_pending(catalog, notify, since, now, sender_id, lease.check)
        told = tell_pending(catalog, notify, sender_id, lease.check)
    for each in told:
        print(f"callpress: {in_words(each)}")
    return EXIT_FAILED if any(map(_is_unfinished, told)) else 0


def _is_unfinished(told: Told) -> bool:
    """Whether somebody is to look at a target: also where not all could be read, so that nothing is
    known of the rest.
    """
    return bool(told.pending or told.failed or (told.why and not told.gone))


def _use_options(arguments: TellArguments) -> None:
    """Has this process reach what the command line allows."""
    storage_options.use(
        replace(
            storage_options.current(),
            allow_private_addresses=arguments.allow_private_addresses,
            named_hosts=targets.hosts_of(arguments.notify),
        )
    )
