"""The one exception this pack raises for problems a user can act on, and what makes its text safe to show."""

MAX_MESSAGE = 600
_GAP = " [...] "


class Video2LoRAError(ValueError):
    """A problem stated in one sentence: what is wrong, with which file or layer, and what to do about it.

    Whatever names and values the sentence quotes, its text is printable and at most `MAX_MESSAGE` characters
    long: a host logs it, and a lone surrogate in a log line ends the host's worker.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message, MAX_MESSAGE))


def printable(text: object, limit: int) -> str:
    """The text on one line, without unprintable characters (they are escaped) and at most `limit` long.

    What is too long loses its middle: a sentence says at its end what to do.
    """
    text = str(text)
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + _GAP + text[-2 * limit :]
    clean = "".join(map(_shown, text))
    if len(clean) <= limit:
        return clean
    kept = (limit - len(_GAP)) // 2
    return clean[:kept] + _GAP + clean[-kept:]


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
