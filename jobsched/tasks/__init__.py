"""Built-in tasks: `echo`, `shell` and `http`. Each is off until the configuration lists its module."""
