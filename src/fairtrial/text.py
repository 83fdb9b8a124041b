"""Makes text of unknown origin safe to show: what a terminal would obey becomes visible escapes.

Names, labels, errors and tracebacks come from study files, stores and the user's code. Raw, an escape sequence in one
could rewrite the screen, a window's title or the clipboard; a bidirectional override could turn a sentence around.
"""

import unicodedata

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Write every character that is not printable as TOML escapes it, but for spaces and those to keep.

    That is control characters (C0 and C1), bidirectional and other invisible formatting, line and paragraph separators,
    surrogates, and what Unicode has not assigned or leaves to private use.

    Example:
        >>> print(visible("\x1b[31mred\u202e"))
        \u001b[31mred\u202e
    """
    if text.isprintable():
        return text
    return "".join(char if _harmless(char) or char in keep else escape(char) for char in text)


def one_line(text: str) -> str:
    r"""Do the same where one line is due: line breaks and tabs are written as escapes, too.

    Example:
        >>> print(one_line("a name\nof two lines"))
        a name\nof two lines
    """
    return visible(text, keep="")


def escape(char: str) -> str:
    """Write a character as an escape."""
    code = ord(char)
    return _SHORT.get(char) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _harmless(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
