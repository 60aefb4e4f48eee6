"""HTML and SVG as trees of the standard library, which escapes every text and attribute itself."""

import re
from xml.etree import ElementTree as ET

Node = ET.Element
Child = Node | str

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML has no way to write, and that a file's or a layer's name may hold."""


def node(tag: str, *children: Child, **attributes: object) -> Node:
    """An element. Underscores in names of attributes are hyphens, one at the end is dropped
    (``class_``); attributes that are None are left out."""
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.removesuffix("_").replace("_", "-"), clean(str(value)))
    add(made, *children)
    return made


def add(parent: Node, *children: Child) -> None:
    """Append elements and texts, in order."""
    for child in children:
        if not isinstance(child, str):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + clean(child)
        else:
            parent.text = (parent.text or "") + clean(child)


def clean(text: str) -> str:
    """``text`` with characters that no document may hold replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def html(root: Node) -> str:
    """A whole HTML document."""
    return "<!DOCTYPE html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def xml(root: Node) -> str:
    """A whole XML document, such as an SVG file."""
    declaration = '<?xml version="1.0" encoding="utf-8"?>\n'
    return declaration + ET.tostring(root, encoding="unicode") + "\n"
