from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mesh_sdk.observe import instruments
from mesh_sdk.observe.instruments import Counter, Gauge, Histogram, Info, Instrument


def text(*kept: Instrument) -> str:
    class Kept(Collector):
        def collect(self) -> list[Metric]:
            return [family for each in kept if (family := each.family())]

    registry = CollectorRegistry()
    registry.register(Kept())
    return generate_latest(registry).decode()


def test_a_counter_without_labels_shows_at_once_and_counts() -> None:
    counter = Counter("mesh_things", "Things.")
    assert "mesh_things_total 0.0" in text(counter)
    counter.add()
    counter.add((), 3)
    assert "mesh_things_total 4.0" in text(counter)


def test_preset_label_sets_show_as_zero_and_keep_what_was_counted() -> None:
    counter = Counter("mesh_things", "Things.", ("kind",))
    counter.add(("a",))
    counter.preset(("a",), ("b",))
    shown = text(counter)
    assert 'mesh_things_total{kind="a"} 1.0' in shown
    assert 'mesh_things_total{kind="b"} 0.0' in shown


@pytest.mark.parametrize(("value", "first"), [(0.0, "0.1"), (0.1, "0.1"), (0.11, "1.0"), (1.0, "1.0"), (5.0, "+Inf")])
def test_an_observation_counts_from_the_bucket_whose_bound_it_does_not_exceed(value: float, first: str) -> None:
    histogram = Histogram("mesh_seconds", "Time.", (0.1, 1))
    histogram.observe(value)
    shown = text(histogram)
    bounds = ["0.1", "1.0", "+Inf"]
    for bound in bounds:
        expected = 1.0 if bounds.index(bound) >= bounds.index(first) else 0.0
        assert f'mesh_seconds_bucket{{le="{bound}"}} {expected}' in shown
    assert "mesh_seconds_count 1.0" in shown
    assert f"mesh_seconds_sum {value}" in shown


def test_past_the_limit_label_sets_are_counted_together_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(instruments, "CHILDREN_MAX", 2)
    counter = Counter("mesh_things", "Things.", ("kind",))
    histogram = Histogram("mesh_seconds", "Time.", (1,), ("kind",))
    with caplog.at_level(logging.WARNING):
        for kind in ("a", "b", "c", "d", "a"):
            counter.add((kind,))
            histogram.observe(0.5, (kind,))
    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == [("c",), ("c",)]
    shown = text(counter, histogram)
    assert 'mesh_things_total{kind="a"} 2.0' in shown
    assert 'mesh_things_total{kind="other"} 2.0' in shown
    assert 'mesh_seconds_count{kind="other"} 2.0' in shown
    assert 'kind="c"' not in shown


def test_a_gauge_without_a_read_is_not_shown() -> None:
    assert text(Gauge("mesh_depth", "Depth.")) == ""


def test_a_failing_read_costs_only_its_own_metric(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Gauge("mesh_bad", "Bad."), Gauge("mesh_good", "Good.")
    bad.read = lambda: 1 / 0
    good.read = lambda: 3
    shown = text(bad, good)
    assert "mesh_bad" not in shown
    assert "mesh_good 3.0" in shown
    assert "mesh_bad" in caplog.text


def test_a_read_that_meets_a_change_is_repeated() -> None:
    calls: list[int] = []

    def read() -> dict[str, float]:
        calls.append(1)
        if len(calls) < instruments.READ_TRIES:
            raise RuntimeError("dictionary changed size during iteration")
        return {"abc": 2}

    gauge = Gauge("mesh_slots", "Slots.", "pool")
    gauge.read = read
    assert 'mesh_slots{pool="abc"} 2.0' in text(gauge)


def test_a_read_that_always_meets_a_change_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> dict[str, float]:
        raise RuntimeError("dictionary changed size during iteration")

    gauge = Gauge("mesh_slots", "Slots.", "pool")
    gauge.read = read
    assert text(gauge) == ""
    assert "changed size" in caplog.text


def test_info_is_a_one_with_labels() -> None:
    assert 'mesh_worker_info{name="a"} 1.0' in text(Info("mesh_worker_info", "Who.", {"name": "a"}))
