"""The one exception this pack raises for problems a user can act on."""


class Video2LoRAError(ValueError):
    """A problem stated in one sentence: what is wrong, with which file or layer, and what to do about it."""
