"""A recipe over a grid of settings, each point an ordinary run in a process of its own.

``grid`` says which points there are, ``plan`` checks them all before any runs, ``folder`` keeps
what is finished, ``local`` and ``cluster`` run what is left, here or on Dask, and ``execution``
joins them. How a sweep survives what it survives: ``docs/sweeps.md``.
"""
