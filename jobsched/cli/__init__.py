"""The command line. Importing it is cheap: a spawned child does so again."""

__all__ = ["main"]


def main() -> None:
    """Run the command that `sys.argv` holds, and exit."""
    from jobsched.cli.app import run_command_line  # noqa: PLC0415 (typer is for the command line alone)

    run_command_line()
