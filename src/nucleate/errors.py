"""What can go wrong, by whose hand. Every message says what was expected, what came and what to do."""


class NucleateError(Exception):
    """A failure that is ours to explain in one line (exit code 1)."""


class InputError(NucleateError, ValueError):
    """The input cannot be used as it is (exit code 2). `reason` is a short stable key for counted tables."""

    def __init__(self, message: str, reason: str = "bad input") -> None:
        super().__init__(message)
        self.reason = reason


class EnergyModelError(NucleateError, RuntimeError):
    """An energy model crashed, hung, refused an element or gave no finite number."""
