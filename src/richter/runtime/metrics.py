"""Figures of a process for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import structlog

from richter.errors import ArgumentsError

__all__ = ["Figure", "offered"]


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
