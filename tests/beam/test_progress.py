"""Progress: whoever listens hears every report, until it stops listening."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from transforms import progress


def test_listener_hears_figures_until_it_stops() -> None:
    heard: list[tuple[str, int]] = []
    stop = progress.listen(lambda what, count: heard.append((what, count)))

    progress.report("archives")
    progress.report("media_samples", 48_000)
    stop()
    progress.report("archives")

    assert heard == [("archives", 1), ("media_samples", 48_000)]


def test_every_listener_hears_a_report() -> None:
    first: list[int] = []
    second: list[int] = []
    stops = [progress.listen(lambda _, count: first.append(count)), progress.listen(lambda _, count: second.append(count))]

    progress.report("tracks", 2)
    stops[0]()
    progress.report("tracks", 3)
    stops[1]()

    assert first == [2]
    assert second == [2, 3]


def test_listener_that_stops_while_it_is_told_does_not_silence_others() -> None:
    heard: list[str] = []
    stops = []

    def leave(_what: str, _count: int) -> None:
        heard.append("leaving")
        stops[0]()

    stops.append(progress.listen(leave))
    stops.append(progress.listen(lambda what, _count: heard.append(what)))
    progress.report("calls")
    progress.report("calls")
    stops[1]()

    assert heard == ["leaving", "calls", "calls"]


def test_reports_from_many_threads_all_arrive() -> None:
    heard: list[int] = []
    stop = progress.listen(lambda _, count: heard.append(count))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: progress.report("media_samples", number), range(200)))
    stop()

    assert sorted(heard) == list(range(200))


def test_report_without_a_listener_does_nothing() -> None:
    progress.report("failures")
