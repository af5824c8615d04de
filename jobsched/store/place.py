"""The directory of a store: where it may lie, who may write it, when its entries are on disk."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from jobsched.errors import StoreUnsafe

__all__ = ["JOURNALS", "make_private", "refuse_network", "sync_directory"]

JOURNALS = "journals"
"""The directory, in that of a store, in which clients have their journals."""

# statfs magic would need ctypes; the mount table says the same in words.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)

_OCTAL = re.compile(r"\\([0-7]{3})")  # how the mount table writes blanks and the like


def make_private(path: Path) -> None:
    """Create a directory with mode 0700, or check that only its owner can write it.

    Raises StoreUnsafe: anyone who can write a store runs code as its owner.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreUnsafe(f"cannot create {path}: {error.strerror}") from error
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        raise StoreUnsafe(f"{path} is a symbolic link: name the directory itself")
    if not stat.S_ISDIR(info.st_mode):
        raise StoreUnsafe(f"{path} is not a directory")
    if info.st_uid not in (os.geteuid(), 0):
        raise StoreUnsafe(f"{path} belongs to uid {info.st_uid}, not to {os.geteuid()}")
    if info.st_mode & 0o022:
        mode = stat.S_IMODE(info.st_mode)
        raise StoreUnsafe(f"{path} can be written by others (mode {mode:o}): chmod 700 {path}")
    refuse_network(path, Path("/proc/self/mounts"))


def refuse_network(path: Path, mounts: Path) -> None:
    """Raise StoreUnsafe if a path lies on a network file system, by a mount table.

    LMDB maps its file into memory and locks it: neither holds across machines.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return  # no such table on this platform
    real = path.resolve()
    best, kind = "", ""
    for fields in (line.split() for line in lines):
        place = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[1])
        if real.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, fields[2]
    if kind in _NETWORK:
        raise StoreUnsafe(f"{path} lies on a network file system ({kind} at {best}): use a local disk")


def sync_directory(path: Path) -> None:
    """Put on disk which files a directory has, under which names."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
