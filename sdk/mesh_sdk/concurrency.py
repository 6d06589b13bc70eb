"""`concurrency=` of workflows, tasks and steps, and what `max_runs` and `limit_strategy` may be.

Rule: every limit is read here, at definition, into what travels; what the scheduler would refuse is refused before it gets there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesh_sdk.errors import DefinitionError
from mesh_sdk.expressions import FUNCTIONS, language_of, shortened
from mesh_sdk.limits import Concurrency, ConcurrencyLimitStrategy
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX, LIMITS_MAX, RUNS_MAX, SCOPE_CHARACTERS_MAX, WEIGHT_MAX, WEIGHTS_MAX
from mesh_sdk.protocol.definitions import GROUP_ROUND_ROBIN, ConcurrencyDefinition

ConcurrencyOption = str | Concurrency | Sequence[str | Concurrency] | None


def read_concurrency(value: object, what: str) -> tuple[ConcurrencyDefinition, ...]:
    """Read the option.

    Args:
        value: a key, a `Concurrency`, or several of them, which must all admit.
        what: names the workflow or step in messages.

    Raises:
        DefinitionError: for what is no limit, has a key, count, strategy, scope or weight that can't be, or stands there twice.
    """
    limits = tuple(_limit(each, f"the concurrency of {what}") for each in _each(value, what))
    if len(limits) > LIMITS_MAX:
        raise DefinitionError(f"concurrency of {what} has {len(limits)} limits, {LIMITS_MAX} are the most")
    seen: set[tuple[str, str, str]] = set()
    for limit in limits:
        if (limit.key, limit.strategy, limit.scope) in seen:
            key = shortened(limit.key)
            raise DefinitionError(
                f"concurrency of {what} has two limits on {key} with one strategy and scope: keep the one with fewer max_runs"
            )
        seen.add((limit.key, limit.strategy, limit.scope))
    return limits


def _each(value: object, what: str) -> Iterable[object]:
    if value is None:
        return ()
    if isinstance(value, str | Concurrency):
        return (value,)
    if callable(value) and not isinstance(value, type):
        raise DefinitionError(f"concurrency of {what} is {value!r}: {FUNCTIONS}")
    if not isinstance(value, Sequence):
        raise DefinitionError(f"concurrency of {what} is {value!r}: use a key such as 'input.user_id', a Concurrency(...), or a list")
    return value


def _limit(value: object, what: str) -> ConcurrencyDefinition:
    limit = Concurrency(value) if isinstance(value, str) else value
    if not isinstance(limit, Concurrency):
        raise DefinitionError(f"{what} holds {value!r}: use a key such as 'input.user_id', or a Concurrency(...)")
    strategy = read_strategy(limit.limit_strategy, what)
    return ConcurrencyDefinition(
        max_runs=read_max_runs(limit.max_runs, what),
        strategy=strategy,
        language=language_of(limit.key, f"key of {what}"),
        key=limit.key,
        scope=_scope(limit.scope, what),
        weights=_weights(limit.weights, strategy, what),
    )


def read_max_runs(value: object, what: str) -> int:
    """Return `value` if so many runs can be allowed at once.

    Raises:
        DefinitionError: when it is no whole number, or not from 1 to `RUNS_MAX`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= RUNS_MAX:
        raise DefinitionError(f"max_runs of {what} is {value!r}: use a whole number from 1 to {RUNS_MAX:,}")
    return value


def read_strategy(value: object, what: str) -> str:
    """The name of a strategy, given as one or by its exact name.

    Raises:
        DefinitionError: when it is none.
    """
    names = [strategy.value for strategy in ConcurrencyLimitStrategy]
    if not isinstance(value, str) or value not in names:
        raise DefinitionError(
            f"limit_strategy of {what} is {value!r}: use one of ConcurrencyLimitStrategy, or its name: {', '.join(names)}"
        )
    return str(value)


def _scope(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > SCOPE_CHARACTERS_MAX or not value.isprintable():
        raise DefinitionError(f"scope of {what} is {shortened(value)}: use up to {SCOPE_CHARACTERS_MAX} printable characters")
    return value


def _weights(value: object, strategy: str, what: str) -> dict[str, int]:
    if not isinstance(value, Mapping) or len(value) > WEIGHTS_MAX:
        raise DefinitionError(f"weights of {what} is {value!r}: use a mapping of up to {WEIGHTS_MAX:,} keys to numbers")
    if value and strategy != GROUP_ROUND_ROBIN:
        raise DefinitionError(f"weights of {what} would never count: only {GROUP_ROUND_ROBIN} serves keys in turn, this is {strategy}")
    for key, turns in value.items():
        if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS_MAX:
            raise DefinitionError(f"weights of {what} has the key {shortened(key)}: use text of 1 to {KEY_CHARACTERS_MAX} characters")
        if isinstance(turns, bool) or not isinstance(turns, int) or not 1 <= turns <= WEIGHT_MAX:
            raise DefinitionError(f"weight of {shortened(key)} of {what} is {turns!r}: use a whole number from 1 to {WEIGHT_MAX:,}")
    return dict(value)
