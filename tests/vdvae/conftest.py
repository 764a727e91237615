"""Fixtures of the tests of VDVAE."""

from __future__ import annotations

import pytest

from .golden import NAMES, Golden, load_golden


@pytest.fixture(scope="module", params=NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)
