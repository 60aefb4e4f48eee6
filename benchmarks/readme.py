"""The README's tables that benchmarks write: each between two comments, so that it is replaced.

``<!-- bench:NAME -->`` stands before a table and ``<!-- /bench:NAME -->`` after it.
"""

import re


def filled(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` in the place of that name. Raises ValueError where there is none,
    or where there are two."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    found = pattern.findall(text)
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} places {begin} ... {end}, not one")
    return pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text)
