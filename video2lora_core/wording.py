"""Words of messages and reports that several modules write."""


def counted(count: int, noun: str) -> str:
    """The count with its noun, which takes an s unless there is one: '1 step', 'no steps', '3 steps'."""
    return f"{count or 'no'} {noun}" + ("" if count == 1 else "s")
