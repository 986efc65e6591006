"""A made-up pipeline of few questions, shared by the tests of its page."""

import pytest

from tests.made_pipeline import Made, make_pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_pipeline(tmp_path_factory.mktemp("pipeline"), questions=36)
