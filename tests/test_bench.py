"""The benchmarks are not run by the tests; that they can be is."""

import importlib
import pkgutil

import pytest

import bench
from bench import step_cost
from protocol.codec import encode

#: What needs sleap-rtc, which `make bench` installs into a place of its own.
_ELSEWHERE = ("bench.__main__", "bench.ends.sleap_rtc")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(bench.__path__, "bench.")
    if module.name not in _ELSEWHERE
]


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_s_module_can_be_imported(name: str) -> None:
    assert importlib.import_module(name)


def test_a_step_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_cost, "_FRAMES", 2)
    for case in step_cost._cases():
        assert step_cost._ours(case, encode(case.frame)) > 0
