"""`nucleate guide`: how a program, or an assistant that writes programs, drives this one."""

from importlib.resources import files


def guide() -> None:
    """Print how to drive this program, for scripts and coding assistants: commands, files, exit codes, limits.

    Example: nucleate guide > AGENTS.md
    """
    print(files("nucleate").joinpath("guide.md").read_text(encoding="utf-8"), end="")
