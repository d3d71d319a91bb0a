"""The benchmarks are not run by the tests; that they can be is."""

import importlib
import pkgutil

import pytest

import bench

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
