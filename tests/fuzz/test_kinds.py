"""What a type or a table allows is accepted as that, and what it does not allow is refused."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.all_kinds import KINDS
from tests.fuzz.budget import CASES, CEILING_S, SEED
from tests.fuzz.deadline import stopped_after
from tests.fuzz.targets import Refused, Target, answer

pytestmark = pytest.mark.fuzz

#: So many kinds at once: Hypothesis takes longer to begin than to draw.
_AT_ONCE = 6
_GROUPS = [
    (name, kinds[start : start + _AT_ONCE])
    for name, kinds in ((name, list(of_name)) for name, of_name in KINDS.items())
    for start in range(0, len(kinds), _AT_ONCE)
]
#: Of each kind the simplest at least, and what chance brings; more of those that stand alone.
_LEAST = 3


@pytest.mark.parametrize(
    ("name", "kinds"), _GROUPS, ids=[f"{name}: {', '.join(kinds)}" for name, kinds in _GROUPS]
)
def test_all_that_is_of_a_kind_is_accepted_as_it_and_what_differs_in_one_place_is_refused(
    name: str, kinds: list[str], chosen: Callable[[str], Target]
) -> None:
    target = chosen(name)
    pairs = [
        st.tuples(kind.sound, st.none() if kind.unsound is None else kind.unsound)
        for kind in (KINDS[name][one] for one in kinds)
    ]

    @seed(SEED)
    @settings(
        max_examples=max(_LEAST, CASES // len(_GROUPS) // len(kinds)),
        deadline=None,  # the CPU is what is bounded, below
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*pairs))
    def each(drawn: tuple[tuple[bytes, bytes | None], ...]) -> None:
        for kind, (good, bad) in zip(kinds, drawn, strict=True):
            _check(target, kind, good, bad)

    each()


def _check(target: Target, kind: str, good: bytes, bad: bytes | None) -> None:
    is_read = KINDS[target.name][kind].is_read
    with stopped_after(CEILING_S):
        got = answer(target, good)
    assert not isinstance(got, Refused), f"{kind} of {good!r} is refused: {got}"
    assert is_read(got), f"{good!r} is no {kind}, but {got!r:.200}"
    if bad is None:
        return
    with stopped_after(CEILING_S):
        got = answer(target, bad)
    if target.refusals:
        assert isinstance(got, Refused), f"{bad!r:.400} is accepted as {got!r:.200}"
    else:
        assert not is_read(got), f"{bad!r:.400} is read as if nothing were wrong with it"
