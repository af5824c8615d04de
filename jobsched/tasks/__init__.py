"""Built-in tasks: `print`, `shell` and `http`. Each is off until the configuration lists its module."""
