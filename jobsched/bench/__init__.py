"""The load-generation benchmark: real nodes, real files, full durability.

A module for each scenario has `run_<scenario>`, which is one run; `report` repeats it.
"""
