"""What can go wrong, by whose hand. Every message says what was expected, what came and what to do."""

LONGEST = 2000  # characters of a message


class NucleateError(Exception):
    """A failure that is ours to explain in one line (exit code 1).

    Messages quote files and libraries: line ends and control characters in them become blanks, so that one message
    stays one line and no file can write on the terminal. What is too long is cut.
    """

    def __init__(self, message: str = "") -> None:
        cut = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
        super().__init__("".join(c if c.isprintable() else " " for c in cut).strip())


class InputError(NucleateError, ValueError):
    """The input cannot be used as it is (exit code 2). `reason` is a short stable key for counted tables."""

    def __init__(self, message: str, reason: str = "bad input") -> None:
        super().__init__(message)
        self.reason = reason


class EnergyModelError(NucleateError, RuntimeError):
    """An energy model crashed, hung, refused an element or gave no finite number."""
