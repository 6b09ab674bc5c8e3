"""The names of the metrics in a PromQL expression, without a parser of the language."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_:]*")
_SERIES = re.compile(r"_(bucket|count|sum)$")
_WORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool",
    "inf", "nan",
}  # fmt: skip


def metric_names(expression: str) -> set[str]:
    """Names of the families asked for; `_bucket`, `_count` and `_sum` count as their histogram."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\S+", " ", bare)
    bare = re.sub(r"(?<![\w:])[0-9][\w.]*", " ", bare)
    names = set()
    for found in _NAME.finditer(bare):
        word = found.group()
        called = bare[found.end() :].lstrip().startswith("(")
        if not called and word.lower() not in _WORDS:
            name = word
            if word.startswith("fraud_"):
                name = _SERIES.sub("", word)
            names.add(name)
    return names
