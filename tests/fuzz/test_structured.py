"""Inputs of the right shape, or nearly, at every decoder: accepted, or refused as documented."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.budget import CASES, CEILING_S, SEED
from tests.fuzz.conftest import NAMES
from tests.fuzz.deadline import stopped_after
from tests.fuzz.shapes import SHAPES
from tests.fuzz.targets import Target, tried

pytestmark = pytest.mark.fuzz

_EACH = max(1, CASES // len(NAMES))


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
    @given(SHAPES[name])
    def each(data: bytes) -> None:
        nonlocal accepted
        with stopped_after(CEILING_S):
            accepted += tried(target, data)

    each()
    assert accepted > 0, "a strategy that is always refused tries one path"
