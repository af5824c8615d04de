"""Journals: small files in which dispatches are on disk after one flush, without asking anybody.

A client that dispatches often has a journal of its own. It appends what it dispatches, flushes, and its
call returns: no other process has to wake up for it, and one flush is half of a commit. The node takes the
entries in, those of all journals and many calls in one commit, in the order of their times. Each entry has
a number, and the store keeps with the jobs, in the same commit, up to which number it has taken a journal
in: so an entry is in the store once, whoever was killed when.

A journal is part of the store: whoever may write to the store (the node; a client while no node runs)
takes in first what journals hold. Only what could not be refused goes into one; everything else is asked
of the node.
"""
