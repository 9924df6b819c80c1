"""Errors outside of Overtone that the user can correct, explained in one line: those end with exit code 2."""

from overtone.errors import system_refusal

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc")


def correctable(error: BaseException) -> str | None:
    """Explain an error that the user can correct, in one line; None for a defect.

    That is every error of the operating system (a path that is gone, unreadable or too long, a full disk), a NUL
    character in a path, and exhausted memory, of the machine or of a GPU.
    """
    if isinstance(error, OSError):
        return system_refusal(error)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "there is not enough memory; use a smaller batch, fewer workers or a smaller size"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a path contains a NUL character, which no file name can; check the paths that are given"
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch raises these as a RuntimeError, or as its subclass OutOfMemoryError
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
