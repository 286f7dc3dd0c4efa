"""How much memory there is, asked before something large is made."""

from .errors import Video2LoRAError


def free_memory() -> int | None:
    """Bytes of main memory that can be had now; None where that cannot be told (psutil is not there)."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available


def require_memory(needed: int, what: str, advice: str) -> None:
    """Raise Video2LoRAError, with both numbers, when `what` needs more bytes than are free."""
    free = free_memory()
    if free is not None and needed > free:
        raise Video2LoRAError(
            f"{what} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free; {advice}."
        )
