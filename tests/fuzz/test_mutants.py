"""Mutated frames at every decoder: accepted, or refused with a documented error, soon."""

import resource
import time
from collections.abc import Callable

import pytest

from tests.fuzz.budget import CEILING_S, GROWTH_MIB, MUTANTS, SEED
from tests.fuzz.conftest import NAMES, SHARES
from tests.fuzz.deadline import stopped_after
from tests.fuzz.mutator import mutant
from tests.fuzz.targets import Target, tried

pytestmark = pytest.mark.fuzz


def _grown_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_input_is_accepted_or_refused_with_a_documented_error(
    name: str, chosen: Callable[[str], Target]
) -> None:
    target = chosen(name)
    count = int(MUTANTS * target.share / SHARES)
    before, accepted = _grown_mib(), 0
    for number in range(count):
        accepted += _tried(target, f"{SEED}/{name}/{number}")
    assert _grown_mib() - before < GROWTH_MIB
    assert accepted > 0, "mutants that all fail at the first byte prove nothing"


def _tried(target: Target, seed: str) -> bool:
    data = mutant(seed, target.pool)
    started = time.process_time()
    try:
        with stopped_after(CEILING_S):
            return tried(target, data)
    except Exception as error:
        took = time.process_time() - started
        raise AssertionError(
            f"{target.name}: {type(error).__name__} after {took:.1f} CPU s from "
            f"mutant({seed!r}), which is {data!r}; add it to tests/fuzz/test_regressions.py"
        ) from error


@pytest.mark.parametrize("name", NAMES)
def test_something_in_each_pool_is_accepted(name: str, chosen: Callable[[str], Target]) -> None:
    target = chosen(name)
    assert any(tried(target, data) for data in target.pool)


def test_the_same_seed_gives_the_same_mutant() -> None:
    pool = (b"one frame", b"another")
    assert mutant("1/x/2", pool) == mutant("1/x/2", pool) != mutant("1/x/3", pool)
