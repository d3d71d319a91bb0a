"""Tests of the machines' tables."""

import pytest

# asserts of these are shown as those of a test module are
pytest.register_assert_rewrite("tests.machines.scenario", "tests.machines.puppet")
