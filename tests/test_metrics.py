"""Figures for Prometheus: what is offered, where, and what when it cannot be."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from richter.adapters.kafka.stage import StageStatus
from richter.errors import ArgumentsError
from richter.runtime.featurize import Featurized
from richter.runtime.feeding import FeedStatus
from richter.runtime.metrics import Figure, featurize_figures, ingest_figures, offered
from richter.runtime.pipeline import Account
from richter.runtime.publishing import PublishStatus


def read(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_figures_are_those_of_the_moment_they_are_asked_for() -> None:
    port, count = free_port(), [1]
    figures = [
        Figure("some_total", "so many", "counter", lambda: count[0]),
        Figure("some", "now", "gauge", lambda: -2.5),
        Figure("nothing", "not known", "gauge", lambda: None),
    ]

    with offered(f"127.0.0.1:{port}", figures):
        before = read(port)
        count[0] = 7
        after = read(port)

    assert before == {"richter_some_total": 1, "richter_some": -2.5}
    assert after["richter_some_total"] == 7
    with pytest.raises(OSError):
        read(port)


def test_without_an_address_nothing_is_offered() -> None:
    with offered(None, [Figure("x", "x", "gauge", lambda: 1 / 0)]):
        pass


def test_a_taken_port_is_told_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(ArgumentsError, match=r"cannot be offered \(Address already in use\)"):
            offered(address, []).__enter__()


def test_featurize_offers_lag_aborts_and_rebuilds() -> None:
    stage = StageStatus(partitions=[0, 2], commits=5, aborts=1, lag=12, rebuild_s=0.25, rebuilt=900)
    done = Featurized("in", "out", "me", Account(lines=9, rows=7, dead={"a": 1, "b": 1}), stage, Path("x"))

    figures = {each.name: each.value() for each in featurize_figures(done)}

    assert figures["consumer_lag_records"] == 12
    assert figures["transactions_aborted_total"] == 1
    assert (figures["rebuild_seconds"], figures["rebuilt_records"]) == (0.25, 900)
    assert (figures["partitions"], figures["dead_letters_total"], figures["feature_rows_total"]) == (2, 2, 7)
    assert figures["log_rows_total"] is None


def test_ingest_offers_outstanding_deliveries() -> None:
    published = PublishStatus("t", published=4, outstanding=3, trouble="no broker")

    figures = {each.name: each.value() for each in ingest_figures(FeedStatus(recorded=8), published)}

    assert figures["outstanding_records"] == 3
    assert figures["publishing"] is False
    assert figures["recorded_lines_total"] == 8
    assert "outstanding_records" not in {each.name for each in ingest_figures(FeedStatus(), None)}
