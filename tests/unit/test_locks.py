from jobsched.locks import is_locked, lock_file, try_lock


def test_a_lock_is_held_through_one_handle_until_that_is_closed(tmp_path):
    file = tmp_path / "a.lock"
    with lock_file(file) as second:
        with lock_file(file) as first:
            assert try_lock(first)
            assert not try_lock(second)
            assert is_locked(file)
        assert not is_locked(file)
        assert try_lock(second)


def test_a_lock_file_is_its_owners_alone(tmp_path):
    with lock_file(tmp_path / "a.lock"):
        assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_not_there_is_not_locked_and_not_made(tmp_path):
    assert not is_locked(tmp_path / "a.lock")
    assert not (tmp_path / "a.lock").exists()
