from jobsched.tasks.print import print as print_task


def test_a_text_goes_where_it_is_to_be_printed(capsys):
    assert print_task("grüße") is None
    print_task("oh", err=True)
    assert capsys.readouterr() == ("grüße\n", "oh\n")
