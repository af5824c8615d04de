import os
import resource
import subprocess
import sys

from jobsched.memory_limit import MemoryLimit, anonymous_bytes

MIB = 1 << 20

LIMITED = """
import resource
from jobsched.memory_limit import MemoryLimit, anonymous_bytes
import os
MIB = 1 << 20
limit = MemoryLimit()
def can_take(size):
    try:
        bytearray(size)
    except MemoryError:
        return False
    return True
"""


def in_process(script: str) -> str:
    """Run a script in a process of its own, and return what it prints."""
    found = subprocess.run(
        [sys.executable, "-c", LIMITED + script], capture_output=True, text=True, timeout=30, check=True
    )
    return found.stdout.strip()


def test_memory_over_the_limit_is_refused_until_it_is_lifted():
    script = """
base = anonymous_bytes(os.getpid())
found = [can_take(512 * MIB)]
for most in (base + 64 * MIB, None, base + 64 * MIB):
    limit.apply(most)
    found.append(can_take(512 * MIB))
found.append(can_take(16 * MIB))
print(found)
"""
    assert in_process(script) == "[True, False, True, False, True]"


def test_a_limit_over_that_of_the_machine_is_that_of_the_machine():
    script = """
hard = 1024 * MIB
resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
limit.apply(1 << 50)
print(resource.getrlimit(resource.RLIMIT_DATA) == (hard, hard), can_take(2048 * MIB))
limit.apply(None)
print(resource.getrlimit(resource.RLIMIT_DATA) == (hard, hard))
"""
    assert in_process(script).split() == ["True", "False", "True"]


def test_a_limit_is_nearly_reached_at_three_quarters():
    script = """
base = anonymous_bytes(os.getpid())
found = [limit.is_nearly_reached]
for most in (4 * base, base):
    limit.apply(most)
    found.append(limit.is_nearly_reached)
limit.apply(None)
found.append(limit.is_nearly_reached)
print(found)
"""
    assert in_process(script) == "[False, False, True, False]"


def test_memory_counts_once_it_is_used_and_no_more_when_it_is_given_back():
    script = """
import mmap
start = anonymous_bytes(os.getpid())
block = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
untouched = anonymous_bytes(os.getpid())
for place in range(0, len(block), 4096):
    block[place] = 1
used = anonymous_bytes(os.getpid())
block.close()
rest = anonymous_bytes(os.getpid())
print(untouched - start < MIB, 63 * MIB < used - start < 66 * MIB, rest - start < MIB)
"""
    assert in_process(script) == "True True True"


def test_memory_shared_with_a_file_does_not_count(tmp_path):
    script = f"""
import mmap
with open({str(tmp_path / "file")!r}, "w+b") as file:
    file.truncate(64 * MIB)
    start = anonymous_bytes(os.getpid())
    block = mmap.mmap(file.fileno(), 0)
    for place in range(0, len(block), 4096):
        block[place] = 1
    print(anonymous_bytes(os.getpid()) - start < MIB)
"""
    assert in_process(script) == "True"


def test_a_process_that_is_gone_holds_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(30)
    assert anonymous_bytes(process.pid) == 0
    assert anonymous_bytes(os.getpid()) > MIB


def test_without_a_limit_nothing_is_touched():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    MemoryLimit().apply(None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
