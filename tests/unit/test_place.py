import os
import stat
from pathlib import Path

import pytest

from jobsched.errors import StoreUnsafe
from jobsched.store.place import make_private, refuse_network

LOCAL = "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n"


@pytest.fixture
def mounts(tmp_path):
    """A function that writes a mount table."""

    def write(*lines: str) -> Path:
        table = tmp_path / "mounts"
        table.write_text(LOCAL + "".join(f"{line} 0 0\n" for line in lines))
        return table

    return write


# The directory.


def test_a_new_directory_is_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        make_private(tmp_path / "store")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    make_private(tmp_path / "store")


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o500])
def test_a_directory_that_others_cannot_write_is_accepted(tmp_path, mode):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    make_private(tmp_path / "store")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_a_directory_that_others_can_write_is_refused_with_the_remedy(tmp_path, mode):
    place = tmp_path / "store"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(StoreUnsafe, match=rf"written by others \(mode {mode:o}\): chmod 700 {place}"):
        make_private(place)


def test_a_symbolic_link_is_refused_wherever_it_leads(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    for target in ("real", "nowhere"):
        link = tmp_path / f"link-to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(StoreUnsafe, match="is a symbolic link: name the directory itself"):
            make_private(link)


def test_a_link_on_the_way_to_the_directory_is_no_harm(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make_private(tmp_path / "link" / "store")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreUnsafe, match="is not a directory"):
        make_private(tmp_path / "store")


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    with pytest.raises(StoreUnsafe, match=r"cannot create .*store: No such file or directory"):
        make_private(tmp_path / "missing" / "store")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnsafe, match="Not a directory"):
        make_private(tmp_path / "file" / "store")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_somebody_elses_directory_is_refused(tmp_path):
    place = tmp_path / "store"
    place.mkdir(mode=0o700)
    os.chown(place, 12345, -1)
    with pytest.raises(StoreUnsafe, match="belongs to uid 12345, not to 0"):
        make_private(place)


# The mount table.


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre"]
)
def test_network_file_systems_are_refused_by_name(mounts, kind):
    table = mounts(f"server:/jobs /srv {kind} rw")
    with pytest.raises(StoreUnsafe, match=rf"/srv/jobs lies on a network file system \({kind} at /srv\)"):
        refuse_network(Path("/srv/jobs"), table)
    refuse_network(Path("/var/jobs"), table)
    refuse_network(Path("/srv2/jobs"), table)


@pytest.mark.parametrize(
    ("lines", "path", "is_network"),
    [
        (["s:/ /srv nfs rw", "/dev/sdb /srv/fast xfs rw"], "/srv/fast/jobs", False),
        (["s:/ /srv nfs rw", "/dev/sdb /srv/fast xfs rw"], "/srv/jobs", True),
        (["/dev/sdb /srv/fast xfs rw", "s:/ /srv nfs rw"], "/srv/fast/jobs", False),
        (["/dev/sdb /srv xfs rw", "s:/ /srv/net nfs4 rw"], "/srv/net/deep/jobs", True),
        (["s:/ /srv nfs rw", "/dev/sdb /srv ext4 rw"], "/srv/jobs", False),  # the later mount covers
        (["/dev/sdb /srv ext4 rw", "s:/ /srv nfs rw"], "/srv/jobs", True),
        (["s:/ /my\\040files nfs rw"], "/my files/jobs", True),
        (["s:/ /my\\040files nfs rw"], "/my/jobs", False),
        (["s:/a\\040b /srv nfs rw"], "/srv/jobs", True),
        (["tmpfs /tmp tmpfs rw", "overlay / overlay rw"], "/tmp/jobs", False),
        (["s:/ / nfs rw"], "/anywhere", True),
    ],
)
def test_the_mount_that_holds_the_path_decides(mounts, lines, path, is_network):
    table = mounts(*lines)
    if is_network:
        with pytest.raises(StoreUnsafe):
            refuse_network(Path(path), table)
    else:
        refuse_network(Path(path), table)


def test_a_link_into_a_network_file_system_is_followed(mounts, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    with pytest.raises(StoreUnsafe):
        refuse_network(tmp_path / "link" / "jobs", mounts(f"s:/ {tmp_path / 'net'} nfs rw"))


def test_a_platform_without_a_mount_table_is_trusted(tmp_path):
    refuse_network(Path("/srv"), tmp_path / "no-such-table")


def test_the_machines_own_mount_table_can_be_read(tmp_path):
    refuse_network(tmp_path, Path("/proc/self/mounts"))
