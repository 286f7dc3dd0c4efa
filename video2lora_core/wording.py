"""Words of messages and reports that several modules write."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """The count with its noun, in the plural unless there is one: '1 step', 'no steps', '3 steps'; the plural
    takes an s where none is given."""
    return f"{count or 'no'} {noun if count == 1 else plural or noun + 's'}"
