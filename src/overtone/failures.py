"""Failures of the operating system and of memory, explained in one line: the user can correct them, so exit code 2."""

import errno

_LONGEST_NAME = 120
_BY_NAME = {
    "ENOENT": "check the path",
    "EACCES": "change its permissions, or choose another path",
    "EPERM": "change its permissions, or choose another path",
    "EROFS": "choose a path on a disk that can be written",
    "ENOSPC": "free some space, or choose another disk (temporary files: the variable TMPDIR)",
    "EDQUOT": "free some space, or choose another disk (temporary files: the variable TMPDIR)",
    "ENAMETOOLONG": "choose a shorter path",
    "EMFILE": "raise the limit of open files (ulimit -n), or use fewer workers",
    "ENFILE": "raise the limit of open files (ulimit -n), or use fewer workers",
    "ENOMEM": "use a smaller batch, fewer workers or a smaller size",
    "ELOOP": "a link leads back to itself; remove it",
    "EIO": "the disk or the network share reports a fault; check it",
    "ESTALE": "the network share has changed; mount it again",
    "ENOTDIR": "check the path",
    "EISDIR": "give a file",
}
# not every system has all of these errors
_REMEDIES = {getattr(errno, name): remedy for name, remedy in _BY_NAME.items() if hasattr(errno, name)}
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "bad allocation", "std::bad_alloc")


def correctable(error: BaseException) -> str | None:
    """Explain an error that the user can correct, in one line; None for a defect.

    That is every error of the operating system with a number (a path that is gone, unreadable, too long; a full disk),
    a NUL character in a path, and exhausted memory, of the machine or of a GPU.
    """
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "there is not enough memory; use a smaller batch, fewer workers or a smaller size"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a path contains a NUL character, which no file name can; check the paths that are given"
    if isinstance(error, OSError) and error.errno is not None:
        names = [_shortened(name) for name in (error.filename, error.filename2) if name is not None]
        where = f"{' -> '.join(names)}: " if names else ""
        remedy = _REMEDIES.get(error.errno, "check the path, the disk and its permissions")
        return f"{where}{error.strerror or type(error).__name__}; {remedy}"
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch raises these as a RuntimeError, or as its subclass OutOfMemoryError
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def _shortened(name: object) -> str:
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}…{text[-half:]}"
