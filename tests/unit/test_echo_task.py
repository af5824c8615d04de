from jobsched.tasks.echo import echo


def test_a_text_goes_where_it_is_to_be_printed(capsys):
    assert echo("grüße") is None
    echo("oh", err=True)
    assert capsys.readouterr() == ("grüße\n", "oh\n")
