"""An app for each test."""

import local_tasks
import pytest
from local_world import CATEGORIES, START

from jobsched.testing import LocalApp


@pytest.fixture(params=["memory", "lmdb"])
def app(request):
    """An app to which the module-level functions go, on either store."""
    local_tasks.done.clear()
    app = LocalApp(categories=CATEGORIES, workers=3, store=request.param, start=START)
    with app, app.installed():
        yield app
