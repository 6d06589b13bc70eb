"""The options of workflows and steps: what may be written, what it means, what is refused.

Rule: an option is either honoured or refused at definition, naming it; none is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypedDict, cast

from mesh_sdk.concurrency import ConcurrencyOption, read_concurrency
from mesh_sdk.durations import Duration, duration_ms
from mesh_sdk.errors import DefinitionError, InvalidName
from mesh_sdk.labels import DesiredLabels, read_wishes
from mesh_sdk.limits import RateLimit
from mesh_sdk.protocol.bounds import SLOTS_MAX
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, LabelDefinition, RateDefinition
from mesh_sdk.protocol.subjects import PRIORITIES, check_event_name
from mesh_sdk.rates import read_rate_limits
from mesh_sdk.sticky import StickyStrategy

TIMEOUT_MS_DEFAULT = 60_000
HARD_SCHEDULE_TIMEOUT_MS_DEFAULT = 300_000
STICKY_TIMEOUT_MS_DEFAULT = 5_000

IdempotencyKey = str | Callable[[Any], str]


class TaskOptions(TypedDict, total=False):
    """What a workflow of one step can be told: the options of workflows and those of steps."""

    name: str | None
    on_events: Sequence[str]
    on_crons: Sequence[str]
    timeout: Duration | None
    schedule_timeout: Duration | None
    sticky: StickyStrategy | None
    sticky_timeout: Duration | None
    priority: int | None
    concurrency: ConcurrencyOption
    default_metadata: Mapping[str, str] | None
    version: str | None
    idempotency_key: IdempotencyKey | None
    on_failure: Callable[..., Any] | None
    retries: int
    backoff_factor: float | None
    backoff_max_seconds: float | None
    rate_limits: Sequence[RateLimit]
    desired_worker_labels: DesiredLabels | None
    slots: int
    skip_if: object | None


class WorkflowOptions(TypedDict, total=False):
    """What a workflow can be told, besides its `input`."""

    name: str | None
    on_events: Sequence[str]
    on_crons: Sequence[str]
    timeout: Duration | None
    schedule_timeout: Duration | None
    sticky: StickyStrategy | None
    sticky_timeout: Duration | None
    priority: int | None
    concurrency: ConcurrencyOption
    default_metadata: Mapping[str, str] | None
    version: str | None
    idempotency_key: IdempotencyKey | None
    on_failure: Callable[..., Any] | None


class StepOptions(TypedDict, total=False):
    """What a step can be told."""

    name: str | None
    parents: Sequence[Any]
    timeout: Duration | None
    schedule_timeout: Duration | None
    retries: int
    backoff_factor: float | None
    backoff_max_seconds: float | None
    priority: int | None
    rate_limits: Sequence[RateLimit]
    desired_worker_labels: DesiredLabels | None
    concurrency: ConcurrencyOption
    slots: int
    skip_if: object | None


_LATER: dict[str, tuple[object, ...]] = {
    "on_crons": (None, [], ()),
    "on_failure": (None,),
    "skip_if": (None,),
}
"""Options of later versions, with the values that ask for nothing."""

_NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class StepSettings:
    """A step's options, read. None stands for "as the workflow"."""

    name: str | None
    parents: tuple[Any, ...]
    timeout_ms: int | None
    schedule_timeout_ms: int | None
    retries: int
    backoff_factor: float
    backoff_max_ms: int
    priority: int
    slots: int = 1
    concurrency: tuple[ConcurrencyDefinition, ...] = ()
    rate_limits: tuple[RateDefinition, ...] = ()
    labels: tuple[LabelDefinition, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkflowSettings:
    """A workflow's options, read."""

    name: str | None
    on_events: tuple[str, ...]
    timeout_ms: int
    schedule_timeout_ms: int
    sticky: StickyStrategy | None
    sticky_timeout_ms: int
    priority: int
    metadata: dict[str, str]
    version: str
    idempotency_key: IdempotencyKey | None
    concurrency: tuple[ConcurrencyDefinition, ...] = ()
    admission_timeout_ms: int = 0
    """The schedule timeout as it was written: none that a sticky workflow has without one."""


def read_step(options: StepOptions, what: str) -> StepSettings:
    """Read a step's options.

    Args:
        options: as the user wrote them.
        what: names the step (or its function) in messages.

    Raises:
        DefinitionError: for an option that can't be.
    """
    given = _checked(cast("Mapping[str, Any]", options), StepOptions.__annotations__, what)
    return StepSettings(
        name=_name(given.get("name"), what),
        parents=_parents(given.get("parents"), what),
        timeout_ms=_optional_duration(given.get("timeout"), f"timeout of {what}"),
        schedule_timeout_ms=_optional_duration(given.get("schedule_timeout"), f"schedule_timeout of {what}"),
        retries=_whole(given.get("retries", 0), f"retries of {what}"),
        backoff_factor=_backoff_factor(given.get("backoff_factor"), what),
        backoff_max_ms=_optional_duration(given.get("backoff_max_seconds"), f"backoff_max_seconds of {what}") or 0,
        priority=_priority(given.get("priority"), what, 0),
        slots=_slots(given.get("slots", 1), what),
        concurrency=read_concurrency(given.get("concurrency"), what),
        rate_limits=read_rate_limits(given.get("rate_limits"), what),
        labels=read_wishes(given.get("desired_worker_labels"), f"desired_worker_labels of {what}"),
    )


def read_workflow(options: WorkflowOptions, what: str) -> WorkflowSettings:
    """Read a workflow's options.

    Args:
        options: as the user wrote them.
        what: names the workflow in messages.

    Raises:
        DefinitionError: for an option that can't be.
    """
    given = _checked(cast("Mapping[str, Any]", options), WorkflowOptions.__annotations__, what)
    sticky = _sticky(given.get("sticky"), what)
    schedule_timeout = _optional_duration(given.get("schedule_timeout"), f"schedule_timeout of {what}") or 0
    schedule_default = HARD_SCHEDULE_TIMEOUT_MS_DEFAULT if sticky is StickyStrategy.HARD else 0
    return WorkflowSettings(
        name=_name(given.get("name"), what),
        on_events=_events(given.get("on_events"), what),
        timeout_ms=_optional_duration(given.get("timeout"), f"timeout of {what}") or TIMEOUT_MS_DEFAULT,
        schedule_timeout_ms=schedule_timeout or schedule_default,
        sticky=sticky,
        sticky_timeout_ms=_sticky_timeout(given.get("sticky_timeout"), sticky, what),
        priority=_priority(given.get("priority"), what, 1),
        metadata=metadata_of(given.get("default_metadata"), f"default_metadata of {what}", DefinitionError),
        version=_version(given.get("version"), what),
        idempotency_key=_idempotency_key(given.get("idempotency_key"), what),
        concurrency=read_concurrency(given.get("concurrency"), what),
        admission_timeout_ms=schedule_timeout,
    )


def split_task(options: TaskOptions, what: str) -> tuple[WorkflowOptions, StepOptions]:
    """Tell a task's options apart: those that both kinds have go to the workflow, its step follows.

    Raises:
        DefinitionError: for an option that is neither.
    """
    given = dict(_checked(cast("Mapping[str, Any]", options), TaskOptions.__annotations__, what))
    workflow = {name: given.pop(name) for name in WorkflowOptions.__annotations__ if name in given}
    return cast("WorkflowOptions", workflow), cast("StepOptions", given)


def _checked(options: Mapping[str, Any], known: Iterable[str], what: str) -> Mapping[str, Any]:
    refuse_unknown(options, known, what)
    for name, value in options.items():
        if name in _LATER and not any(value is nothing or value == nothing for nothing in _LATER[name]):
            raise DefinitionError(f"{name}={value!r} of {what} is not supported by this version yet: leave it out")
    return options


def refuse_unknown(options: Mapping[str, object], known: Iterable[str], what: str) -> None:
    """Refuse an option that is not among those known, with a hint at what may have been meant.

    Raises:
        DefinitionError: naming the first.
    """
    names = list(known)
    for name in options:
        if name not in names:
            raise DefinitionError(f"{what} has no option {name!r}{_hint(name, names)}")


def _hint(name: str, names: list[str]) -> str:
    if not names:
        return ": it takes none"
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else f": use {', '.join(names)}"


def check_name(name: object, what: str) -> str:
    """Return `name` if a workflow or step can be called that.

    Raises:
        InvalidName: when it is no text, is empty, too long, or has characters that can't be printed.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _NAME_CHARACTERS_MAX:
        raise InvalidName(f"name of {what} is {name!r}: use 1 to {_NAME_CHARACTERS_MAX} printable characters")
    return name


def _name(value: object, what: str) -> str | None:
    return None if value is None else check_name(value, what)


def _parents(value: object, what: str) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise DefinitionError(f"parents of {what} is {value!r}: use a list of steps or their names")
    return tuple(value)


def _optional_duration(value: object, what: str) -> int | None:
    return None if value is None else duration_ms(value, what, DefinitionError)


def _whole(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DefinitionError(f"{what} is {value!r}: use a whole number, 0 or more")
    return value


def _slots(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= SLOTS_MAX:
        raise DefinitionError(f"slots of {what} is {value!r}: use a whole number from 1 to {SLOTS_MAX:,}")
    return value


def _backoff_factor(value: object, what: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DefinitionError(f"backoff_factor of {what} is {value!r}: use a number, 0 or more")
    return float(value)


def _priority(value: object, what: str, default: int) -> int:
    return default if value is None else check_priority(value, what, DefinitionError)


def check_priority(value: object, what: str, error: type[Exception]) -> int:
    """Return `value` if it is a priority, 1 (lowest) to 9.

    Raises:
        error: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value not in PRIORITIES:
        raise error(f"priority of {what} is {value!r}: use 1 (lowest) to 9")
    return value


def _events(value: object, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        raise DefinitionError(f"on_events of {what} is {value!r}: use a list of event names")
    return tuple(dict.fromkeys(_event_pattern(name, what) for name in names))


def _event_pattern(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise InvalidName(f"on_events of {what} holds {name!r}: use event names")
    try:
        check_event_name(name.replace("*", "x"))
    except InvalidName:
        raise InvalidName(
            f"on_events of {what} holds {name!r}, which no event can be called: "
            "use tokens joined by dots, without spaces or empty tokens; '*' matches any characters"
        ) from None
    return name


def _sticky(value: object, what: str) -> StickyStrategy | None:
    """A strategy, or its exact value as text: whatever comes near (`"soft"`, True) may have been meant otherwise."""
    if value is None:
        return None
    if isinstance(value, str):
        with suppress(ValueError):
            return StickyStrategy(value)
    raise DefinitionError(
        f"sticky of {what} is {value!r}: use StickyStrategy.SOFT or StickyStrategy.HARD (their values are 'SOFT' and 'HARD')"
    )


def _sticky_timeout(value: object, sticky: StickyStrategy | None, what: str) -> int:
    if value is None:
        return STICKY_TIMEOUT_MS_DEFAULT
    if sticky is not StickyStrategy.SOFT:
        raise DefinitionError(
            f"sticky_timeout={value!r} of {what}: only sticky=StickyStrategy.SOFT has one, this is {_shown(sticky)}; leave it out"
        )
    return duration_ms(value, f"sticky_timeout of {what}", DefinitionError)


def _shown(sticky: StickyStrategy | None) -> str:
    return "not sticky" if sticky is None else sticky.value


def metadata_of(value: object, what: str, error: type[Exception]) -> dict[str, str]:
    """Return a copy of `value` if it is a mapping of text to text; `None` is an empty one.

    Raises:
        error: when it is anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and isinstance(item, str) for key, item in value.items()):
        raise error(f"{what} is {value!r}: use a mapping of text to text")
    return dict(value)


def _version(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DefinitionError(f"version of {what} is {value!r}: use text")
    return value


def _idempotency_key(value: object, what: str) -> IdempotencyKey | None:
    if value is None or callable(value):
        return value
    if isinstance(value, str) and value and all(value.split(".")):
        return value
    raise DefinitionError(f"idempotency_key of {what} is {value!r}: use a dotted path such as 'input.order_id', or a function of the input")
