"""Integers to bits and back: canonical Huffman codes, rANS and relative indices, in NumPy.

Everything here is a function of integers, so that the same input gives the same bits on every
machine. Damaged input raises :class:`compressor.errors.ArtifactError` and nothing else.
"""
