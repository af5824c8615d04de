"""`jobsched`, with a count of the functions in C that its main thread calls while it is a node.

The file named by COUNTS_TO gets them by name at the end.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from jobsched.cli import main
from jobsched.node import Node

calls: Counter[str] = Counter()


def note(_: FrameType, event: str, what: object) -> None:
    if event == "c_call":
        calls[what.__qualname__] += 1


def counted(node: Node) -> int:
    sys.setprofile(note)
    try:
        return serve(node)
    finally:
        sys.setprofile(None)
        Path(os.environ["COUNTS_TO"]).write_text(json.dumps(calls))


serve, Node.run = Node.run, counted

if __name__ == "__main__":
    main()
