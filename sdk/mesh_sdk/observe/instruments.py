"""Counters, gauges and histograms that cost the event loop next to nothing: plain numbers, turned into families at a scrape.

Rule: written from one thread (the loop's), read from any. There are no locks: a scrape copies what it reads in one step
of the interpreter, so it may be one observation old, never torn.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

log = logging.getLogger(__name__)

CHILDREN_MAX = 1_000
"""Label sets that one metric keeps; what comes later is counted under `OTHER`."""

OTHER = "other"

READ_TRIES = 3

Labels = tuple[str, ...]

Read = Callable[[], float]
"""Tells a gauge's value at a scrape. Called on the scrape's thread: it must only read."""

ReadEach = Callable[[], Mapping[str, float]]
"""As `Read`, for a gauge with one label: value by label."""


class Instrument(Protocol):
    """Something that a scrape asks for its family."""

    def family(self) -> Metric | None:
        """The family as it stands now; None when there is nothing to tell."""
        ...


def _within_limit(name: str, children: Mapping[Labels, object], labels: Labels) -> Labels:
    """`labels`, or the overflow label set once the metric has as many as it may."""
    if len(children) < CHILDREN_MAX:
        return labels
    other = (OTHER,) * len(labels)
    if other not in children:
        log.warning("metric %s has %d label sets, %r and all later ones are counted as %r", name, CHILDREN_MAX, labels, OTHER)
    return other


class Counter:
    """Counts up, one number for each label set.

    Args:
        name: without `_total`, which is added on the way out.
        help: what one count is.
        labels: names of the labels, none for a plain counter.
    """

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._help = help
        self._label_names = tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Count `amount` more."""
        values = self._values
        if labels not in values:
            labels = _within_limit(self._name, values, labels)
        values[labels] = values.get(labels, 0) + amount

    def preset(self, *labels: Labels) -> None:
        """Show these label sets from now on, as 0: a rate over a counter that appears late misses its first counts."""
        for each in labels:
            self.add(each, 0)

    def family(self) -> Metric | None:
        family = CounterMetricFamily(self._name, self._help, labels=self._label_names)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        return family


class Histogram:
    """Counts observations by size, with one set of buckets for each label set.

    Args:
        name: with its unit.
        help: what is observed.
        bounds: upper bounds of the buckets, ascending, without infinity.
        labels: names of the labels, none for a plain histogram.
    """

    def __init__(self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self._name = name
        self._help = help
        self._label_names = tuple(labels)
        self._bounds = tuple(bounds)
        self._texts = (*(repr(float(bound)) for bound in bounds), "+Inf")
        self._children: dict[Labels, list[float]] = {}
        if not labels:
            self._child(())

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Count one observation."""
        child = self._children.get(labels) or self._child(labels)
        child[bisect_left(self._bounds, value)] += 1
        child[-1] += value

    def preset(self, *labels: Labels) -> None:
        """Show these label sets from now on, as empty."""
        for each in labels:
            self._child(each)

    def _child(self, labels: Labels) -> list[float]:
        """One number for each bucket, the infinite one included, and the sum of all values at the end."""
        if labels not in self._children:
            labels = _within_limit(self._name, self._children, labels)
        return self._children.setdefault(labels, [0.0] * (len(self._bounds) + 2))

    def family(self) -> Metric | None:
        family = HistogramMetricFamily(self._name, self._help, labels=self._label_names)
        for labels, child in list(self._children.items()):
            *counts, total = list(child)
            below = 0.0
            buckets = []
            for text, count in zip(self._texts, counts, strict=True):
                below += count
                buckets.append((text, below))
            family.add_metric(labels, buckets, total)
        return family


class Gauge:
    """A value that is read at the scrape, so that keeping it costs nothing.

    Args:
        name: with its unit.
        help: what the value is.
        label: name of its label; None for a single value.
    """

    def __init__(self, name: str, help: str, label: str | None = None) -> None:
        self._name = name
        self._help = help
        self._label = label
        self.read: Read | ReadEach | None = None
        self.shown = True

    def value(self) -> float | Mapping[str, float] | None:
        """Read it now; None when there is nothing to read, or the read fails."""
        return None if self.read is None else _read(self._name, self.read)

    def family(self) -> Metric | None:
        value = self.value() if self.shown else None
        if value is None:
            return None
        family = GaugeMetricFamily(self._name, self._help, labels=[self._label] if self._label else None)
        if isinstance(value, Mapping):
            for label, each in value.items():
                family.add_metric([label], each)
        else:
            family.add_metric([], value)
        return family


def _read(name: str, read: Read | ReadEach) -> float | Mapping[str, float] | None:
    """Call `read`; once more when what it iterates over changed meanwhile. A failing one costs only its own metric."""
    for attempt in range(READ_TRIES):
        try:
            return read()
        except RuntimeError as error:  # a dict or set that the loop's thread changed during the iteration
            if attempt == READ_TRIES - 1:
                log.warning("metric %s is left out of this scrape: %s", name, error)
        except Exception:  # the read is the caller's code; a scrape has to tell all the other metrics
            log.exception("metric %s is left out of this scrape: its read failed", name)
            break
    return None


class Info:
    """A constant 1 whose labels tell what the process is.

    Args:
        name: ends with `_info`.
        help: what the labels describe.
        labels: name to value; may be changed later by replacing the attribute.
    """

    def __init__(self, name: str, help: str, labels: Mapping[str, str]) -> None:
        self._name = name
        self._help = help
        self.labels = dict(labels)

    def family(self) -> Metric | None:
        labels = self.labels
        family = GaugeMetricFamily(self._name, self._help, labels=list(labels))
        family.add_metric(list(labels.values()), 1)
        return family
