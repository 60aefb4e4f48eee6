"""What each operator does to the labels of its inputs; see ``propagation.py``.

A rule returns the labels of the result, or None (or raises) where it does not cover the case:
then the operator counts as unknown and freezes what it touches. That is the safe side: a rule
must unite at least what the operator couples.
"""

from compressor.channels.rules import elements, layers, moves, products, spatial
from compressor.channels.rules.layers import WHOLE_GROUPS
from compressor.channels.rules.registry import RULES, argument_names, arguments_of, given

__all__ = [
    "RULES",
    "WHOLE_GROUPS",
    "argument_names",
    "arguments_of",
    "elements",
    "given",
    "layers",
    "moves",
    "products",
    "spatial",
]
