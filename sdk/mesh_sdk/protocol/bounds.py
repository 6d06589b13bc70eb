"""How much of everything there may be in a definition or a label: SDKs refuse more where it is written, schedulers where it arrives.

Rule: each bound stands here alone, so that nothing passes where it is written and is refused where it arrives.
"""

from __future__ import annotations

RUNS_MAX = 1_000_000
"""`max_runs` of a concurrency limit."""
LIMITS_MAX = 8
"""Limits of one workflow or step, of each kind."""
KEY_CHARACTERS_MAX = 512
"""Of a group's or a rate's key, of a start's key, and of an expression."""
SCOPE_CHARACTERS_MAX = 128
WEIGHTS_MAX = 1_000
"""Keys of one limit that have weights."""
WEIGHT_MAX = 1_000
"""Turns of a key in a round."""

UNITS_MAX = 1_000_000_000
"""Of a rate: its limit, and what one attempt takes."""
PER_MS_MAX = 366 * 86_400_000

LABELS_MAX = 32
"""Of one step or run, and of one worker."""
LABEL_NAME_CHARACTERS_MAX = 128
LABEL_CHARACTERS_MAX = 512
"""Of a label that is text."""
LABEL_CHOICES_MAX = 100
"""With the comparator `in`."""
LABEL_WEIGHT_MAX = 1_000_000

SLOTS_MAX = 100_000
"""Of a worker, as schedulers take it, and so what one attempt may take. Workers of this SDK offer less."""
