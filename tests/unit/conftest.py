"""What the unit tests share."""

import pytest
from crews import Crew


@pytest.fixture
def crew(tmp_path):
    """A function that makes a crew of a configuration's categories."""
    made: list[Crew] = []

    def make(categories="[categories.mail]\n[categories.reports]\n") -> Crew:
        made.append(Crew(categories, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.close()
