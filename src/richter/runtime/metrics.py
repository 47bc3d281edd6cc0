"""Figures of a process for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog

from richter.errors import ArgumentsError

if TYPE_CHECKING:
    from richter.runtime.featurize import Featurized
    from richter.runtime.feeding import FeedStatus
    from richter.runtime.publishing import PublishStatus

__all__ = ["Figure", "featurize_figures", "ingest_figures", "offered"]


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: after `richter_`; a counter's ends with `_total`.
        meaning: in a few words.
        kind: a counter only grows.
        value: at this moment; None leaves it out.
    """

    name: str
    meaning: str
    kind: Literal["counter", "gauge"]
    value: Callable[[], float | None]


@contextmanager
def offered(address: str | None, figures: Iterable[Figure]) -> Iterator[None]:
    """Serve figures at `http://address/metrics` meanwhile; nowhere when there is no address.

    Raises:
        ArgumentsError: the address cannot be had.
    """
    if address is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    chosen = list(figures)

    class Figures(Collector):
        def collect(self) -> Iterable[Metric]:
            for figure in chosen:
                value = figure.value()
                if value is not None:
                    family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
                    yield family(f"richter_{figure.name}", figure.meaning, value=value)

    registry = CollectorRegistry()
    registry.register(Figures())
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host or "127.0.0.1", registry)
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise ArgumentsError(
            f"the figures cannot be offered ({told})", address, "choose another --metrics"
        ) from error
    structlog.get_logger("richter.metrics").info(
        "metrics", text=f"figures at http://{host or '127.0.0.1'}:{server.server_port}/metrics"
    )
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ingest_figures(feed: FeedStatus, published: PublishStatus | None) -> list[Figure]:
    """Of a process that records and publishes."""
    figures = [
        Figure("recorded_lines_total", "ticks recorded", "counter", lambda: feed.recorded),
        Figure("unrecorded_lines_total", "ticks that the disk refused", "counter", lambda: feed.unrecorded),
        Figure("lost_frames_total", "frames that found no room", "counter", lambda: feed.lost_frames),
        Figure("connections_total", "connections to the exchange", "counter", lambda: feed.connections),
        Figure("waiting_bytes", "frames received and not worked on", "gauge", lambda: feed.waiting_bytes),
    ]
    if published is not None:
        figures += [
            Figure(
                "published_records_total", "acknowledged by Kafka", "counter", lambda: published.published
            ),
            Figure(
                "outstanding_records", "sent and not acknowledged", "gauge", lambda: published.outstanding
            ),
            Figure("refused_lines_total", "dead letters of publishing", "counter", lambda: published.refused),
            Figure("producer_restarts_total", "producers that failed", "counter", lambda: published.restarts),
            Figure("publishing", "1 while nothing keeps us from it", "gauge", lambda: not published.trouble),
        ]
    return figures


def featurize_figures(done: Featurized) -> list[Figure]:
    """Of a process of the group that computes features."""
    stage, account = done.stage, done.account
    return [
        Figure("partitions", "partitions that are ours", "gauge", lambda: len(stage.partitions)),
        Figure("consumer_lag_records", "records of our partitions not read yet", "gauge", lambda: stage.lag),
        Figure("transactions_committed_total", "transactions", "counter", lambda: stage.commits),
        Figure("transactions_aborted_total", "transactions given up", "counter", lambda: stage.aborts),
        Figure("stage_restarts_total", "stages lost and begun anew", "counter", lambda: done.restarts),
        Figure("rebuild_seconds", "the last rebuild of state", "gauge", lambda: stage.rebuild_s),
        Figure("rebuilt_records", "records read for it", "gauge", lambda: stage.rebuilt),
        Figure("records_total", "raw records worked on", "counter", lambda: account.lines),
        Figure("feature_rows_total", "rows written", "counter", lambda: account.rows),
        Figure("duplicate_ticks_total", "doubled ticks dropped", "counter", lambda: account.duplicates),
        Figure("dead_letters_total", "records not used", "counter", lambda: sum(account.dead.values())),
        Figure(
            "log_rows_total",
            "rows in the log",
            "counter",
            lambda: None if done.log is None else done.log.rows,
        ),
    ]
