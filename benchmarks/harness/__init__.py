"""``compress bench``: how large and how fast networks are, beside each other, with intervals.

Importing the package or any of its modules but ``runtimes``, ``jobs`` and those imports neither
torch nor ONNX Runtime: they are imported in worker processes. The method is in ``docs/bench.md``.
"""
