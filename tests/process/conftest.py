"""A project of its own for each test, and none of its processes left after it."""

import pytest
from nodes import Project


@pytest.fixture
def project(tmp_path):
    """A folder with two categories and the recorded tasks; nodes are started on it."""
    made = Project(tmp_path)
    yield made
    made.close()
