"""Tables inside a Markdown file, between two marks."""


def replaced(text: str, name: str, content: str) -> str:
    r"""A text in which what stands between the marks of a name is replaced.

    Raises:
        ValueError: For a text without the two marks, in lines of their own.

    >>> print(replaced("a\n<!-- t -->\nold\n<!-- end of t -->\nb", "t", "new"))
    a
    <!-- t -->
    new
    <!-- end of t -->
    b
    """
    begin, end = (f"<!-- {mark} -->" for mark in (name, f"end of {name}"))
    lines = text.split("\n")
    if lines.count(begin) != 1 or lines.count(end) != 1 or lines.index(end) < lines.index(begin):
        raise ValueError(f"needs the lines {begin} and {end} once each, in this order, to write tables between them")
    return "\n".join([*lines[: lines.index(begin) + 1], content.strip("\n"), *lines[lines.index(end) :]])
