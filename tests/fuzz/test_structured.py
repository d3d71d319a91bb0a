"""Inputs of the right shape, or nearly, at every decoder: accepted, or refused as documented."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.all_kinds import KINDS
from tests.fuzz.budget import CASES, CEILING_S, SEED
from tests.fuzz.conftest import NAMES
from tests.fuzz.deadline import stopped_after
from tests.fuzz.mutator import mutant
from tests.fuzz.shapes import SHAPES
from tests.fuzz.targets import Target, tried

pytestmark = pytest.mark.fuzz

#: Half of the cases; the others are those of `test_kinds`.
_EACH = max(1, CASES // 2 // len(NAMES))


@st.composite
def _inputs(draw: st.DrawFn, name: str) -> bytes:
    """What is sound, what was sound and is mutated, and what has the shape alone."""
    way = draw(st.integers(0, 3))
    if way == 3:
        return draw(SHAPES[name])
    good = draw(draw(st.sampled_from([kind.sound for kind in KINDS[name].values()])))
    return good if way < 2 else mutant(str(draw(st.integers(0, 2**32))), (good or b"x",))


def test_every_decoder_has_a_shape() -> None:
    assert list(SHAPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_input_of_the_right_shape_is_accepted_or_refused_with_a_documented_error(
    name: str, chosen: Callable[[str], Target]
) -> None:
    target, accepted = chosen(name), 0

    @seed(SEED)
    @settings(
        max_examples=_EACH,
        deadline=None,  # the CPU is what is bounded, below
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_inputs(name))
    def each(data: bytes) -> None:
        nonlocal accepted
        with stopped_after(CEILING_S):
            accepted += tried(target, data)

    each()
    assert accepted >= max(1, _EACH // 10), "a strategy that is mostly refused tries few paths"
