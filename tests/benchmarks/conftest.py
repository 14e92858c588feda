"""Fixtures of the tests of programs that are only lowered or compiled."""

import pytest

from experiments.models import build, resnet


@pytest.fixture
def shallow(monkeypatch):
    """Leaves two of the four stages of every ResNet-18, of all kinds of layers."""
    build.cache_clear()
    monkeypatch.setattr(resnet, "_STAGES", resnet._STAGES[:2])
    yield
    build.cache_clear()
