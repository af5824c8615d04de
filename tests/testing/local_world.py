"""When and where the tests of the testing kit take place."""

from datetime import UTC, datetime

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CATEGORIES = {"mail": {}, "reports": {}, "narrow": {"max_workers": 1}, "paced": {"rate": "1/m"}}
