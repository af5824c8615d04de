"""What may be wrong with a machine, a store or a configuration, and the command that mends it.

A look gathers facts, a rule judges them: `environment`, `machine`, `place` (the store's directory,
its locks, who stands in the way) and `contents` (what is in it). Nothing is changed.
"""
