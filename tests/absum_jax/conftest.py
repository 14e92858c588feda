"""Configuration of the library's tests."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _close_figures():
    """Closes what a test draws: matplotlib warns of many open figures."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
