"""`rate_limits=`: how many units in what time, and what is refused where it is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mesh_sdk import Context, DefinitionError, Mesh, RateLimit
from mesh_sdk.protocol.definitions import RateDefinition

mesh = Mesh()


def work(ctx: Context) -> None: ...


def rates_of(rate_limits: Any) -> list[RateDefinition]:
    return mesh.task(rate_limits=rate_limits)(work).definition().steps[0].rate_limits


def test_limits_travel() -> None:
    assert rates_of(None) == rates_of([]) == rates_of(()) == []
    assert rates_of([RateLimit("mails", 10), RateLimit("input.user_id", "input.plan.calls", "second", "input.size")]) == [
        RateDefinition("mails", 10, 60_000),
        RateDefinition("input.user_id", "input.plan.calls", 1_000, "input.size"),
    ]
    flow = mesh.workflow(name="flow")
    flow.step(rate_limits=(RateLimit("mails", 10, units=10),))(work)
    assert flow.definition().steps[0].rate_limits == [RateDefinition("mails", 10, 60_000, 10)]


@pytest.mark.parametrize(
    ("per", "milliseconds"),
    [
        ("second", 1_000),
        ("minute", 60_000),
        ("hour", 3_600_000),
        ("day", 86_400_000),
        ("week", 604_800_000),
        ("10s", 10_000),
        ("1h30m", 5_400_000),
        (timedelta(days=2), 172_800_000),
        (2.5, 2_500),
    ],
)
def test_times(per: Any, milliseconds: int) -> None:
    assert rates_of([RateLimit("mails", 10, per)])[0].per_ms == milliseconds


def rate(**changes: Any) -> list[RateLimit]:
    return [RateLimit(**{"key": "mails", "limit": 10, **changes})]


BAD: list[tuple[str, Any, str]] = [
    ("one", RateLimit("mails", 10), "rate_limits of {} is RateLimit("),
    ("text", "mails", "rate_limits of {} is 'mails': use a list"),
    ("number in the list", [1], "rate_limits of {} holds 1: use RateLimit("),
    ("key empty", rate(key=""), "key of the rate limit '' of {}: use 1 to 512 printable characters"),
    ("key none", rate(key=None), "rate limit None of {}"),
    ("key too long", rate(key="a" * 513), "use 1 to 512 printable characters"),
    ("key unprintable", rate(key="a\nb"), r"rate limit 'a\nb'"),
    ("key half a path", rate(key="input."), "key of the rate limit 'input.' of {} is no path"),
    ("key of metadata", rate(key="metadata.tenant"), "is no path of the input, and rates take no metadata: use a name, or a dotted path"),
    ("key in CEL", rate(key="input.a + 'x'"), "is no path of the input, and rates take no expressions in CEL: use a name"),
    ("key in CEL that begins with a text", rate(key="'x' + input.a"), "rates take no expressions in CEL"),
    ("key in CEL of metadata", rate(key="metadata['a']"), "rates take no expressions in CEL"),
    ("key a function", rate(key=len), "is a function: rates have none; use a name"),
    ("limit a long text", rate(limit="x" * 600), "is 'xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx': use a whole number"),
    (
        "unit",
        rate(per="fortnight"),
        "per of the rate limit 'mails' of {} is 'fortnight': use second, minute, hour, day, week, or a duration",
    ),
    ("unit in the plural", rate(per="seconds"), "is 'seconds'"),
    ("unit none", rate(per=None), "is None"),
    ("unit a truth value", rate(per=True), "is True"),
    ("time 0", rate(per=0), "is 0: use second"),
    ("time below 0", rate(per="-5s"), "is '-5s'"),
    ("time NaN", rate(per=float("nan")), "is nan"),
    ("time too long", rate(per="9000h"), "is '9000h', more than a year"),
    ("limit 0", rate(limit=0), "limit of the rate limit 'mails' of {} is 0: use a whole number from 1 to 1,000,000,000, or a path"),
    ("limit below 0", rate(limit=-1), "is -1"),
    ("limit a fraction", rate(limit=1.5), "is 1.5"),
    ("limit a truth value", rate(limit=True), "is True"),
    ("limit none", rate(limit=None), "is None"),
    ("limit a text", rate(limit="10"), "is '10'"),
    ("limit of metadata", rate(limit="metadata.calls"), "a path of the input such as 'input.limit'"),
    ("limit half a path", rate(limit="input..calls"), "is 'input..calls'"),
    ("limit too large", rate(limit=10**9 + 1), "is 1000000001"),
    ("units 0", rate(units=0), "units of the rate limit 'mails' of {} is 0"),
    ("units below 0", rate(units=-1), "is -1"),
    ("units a truth value", rate(units=True), "is True"),
    ("units a text", rate(units="2"), "a path of the input such as 'input.units'"),
    (
        "units above the limit",
        rate(units=11),
        "units of the rate limit 'mails' of {} is 11, more than its limit of 10: it could never pass",
    ),
    ("twice", [*rate(), *rate()], "rate_limits of {} has two of the key 'mails': keep one"),
    ("twice, in another time", [*rate(), *rate(per="day")], "give each a key of its own"),
    ("too many", [RateLimit(f"r{n}", 1) for n in range(9)], "rate_limits of {} has 9 of them, 8 are the most"),
]


@pytest.mark.parametrize(("rates", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_limit_that_cannot_be(rates: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        rates_of(rates)
    assert said.format("step 'work' of workflow 'work'") in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_what_comes_with_the_run_is_not_refused_here() -> None:
    assert rates_of(rate(limit="input.limit", units=11))
    assert rates_of(rate(limit=10, units="input.units"))
