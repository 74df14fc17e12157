"""What this package raises on purpose."""


class ReaderError(Exception):
    """Something is wrong with what was read; the text is one line that a person can understand."""


class Refused(ReaderError):
    """Bytes that break a rule of their format, or that are not authentic."""


class Missing(ReaderError):
    """An object that should be in the cell's directory and cannot be had."""
