"""Does a section of a report close what it opens? One that does not would swallow those after it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

# Elements that never close.
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# Elements in which tags may be text.
_OF_TEXT = {"iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"}
# A tag as :func:`stabilitykit.reporting.html.tag` writes it: attributes in double quotes, or bare.
_PLAIN = re.compile(r"""<(/?)([a-zA-Z][a-zA-Z0-9]*)(?: [a-zA-Z][a-zA-Z0-9:_-]*(?:="[^"<]*")?)*>""")


def check_balanced(html: str) -> None:
    """ValueError unless every element that is opened is closed.

    Python's parser takes seconds for a page of megabytes; where every ``<`` begins a plain tag, the tags are enough.
    """
    tags = [(name.lower(), bool(closes)) for closes, name in _PLAIN.findall(html)]
    if len(tags) == html.count("<") and _are_tags(tags):
        balance = _Balance()
        for name, closes in tags:
            balance.close_tag(name) if closes else balance.open_tag(name)
    else:
        parser = _Parser()
        parser.feed(str(html))  # Markup would be cut into pieces of its own kind, slowly
        parser.close()
        balance = parser.balance
    if balance.open:
        raise ValueError(f"its HTML leaves <{balance.open[-1]}> open")


def _are_tags(tags: Sequence[tuple[str, bool]]) -> bool:
    """Whether none of (name, closes) can be text: an element of text is closed by the tag that follows it."""
    following = [*tags[1:], ("", False)]
    return all(
        name not in _OF_TEXT or closes or after == (name, True) for (name, closes), after in zip(tags, following)
    )


class _Balance:
    """Names of the elements that are open, outermost first."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def open_tag(self, name: str) -> None:
        if name not in VOID:
            self.open.append(name)

    def close_tag(self, name: str) -> None:
        """ValueError where ``name`` is not the innermost element."""
        if name not in VOID and (not self.open or self.open.pop() != name):
            raise ValueError(f"its HTML closes <{name}> where it is not open")


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.balance = _Balance()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.balance.open_tag(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.balance.close_tag(tag)
