"""An app for each test, and tasks that say what they do."""

from datetime import UTC, datetime

import pytest

from jobsched.testing import LocalApp

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CATEGORIES = {"mail": {}, "reports": {}, "narrow": {"max_workers": 1}, "paced": {"rate": "1/m"}}


@pytest.fixture(params=["memory", "lmdb"])
def app(request):
    """An app to which the module-level functions go, on either store."""
    with (
        LocalApp(categories=CATEGORIES, workers=3, store=request.param, start=START) as made,
        made.installed(),
    ):
        yield made
