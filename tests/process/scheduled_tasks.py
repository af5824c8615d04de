"""Tasks for schedules: each run leaves a line that says what it was fired for."""

import json
from pathlib import Path

from jobsched import current_job, task

TOLD = Path(__file__).parent / "told"


@task
def tell(label: str) -> None:
    job = current_job()
    told = {"label": label, "schedule": job.schedule, "due": job.due and job.due.isoformat(), "id": job.id}
    with TOLD.open("a") as file:
        file.write(json.dumps(told) + "\n")
