"""`python dispatch_under_limit.py CONFIG`: dispatch 40 jobs with small files only; print their ids."""

import resource
import sys
from pathlib import Path

from jobsched import Dispatcher

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
dispatcher = Dispatcher.from_config(Path(sys.argv[1]))
for number in range(40):
    job = dispatcher.dispatch("tasks:mark", "mail", args=(f"small-{number}",))
    sys.stdout.write(f"{job.id}\n")
