"""The command line: parse, call one verb of the pipeline, print what came of it.

    program.py     the commands in order, and how errors become one line and an exit code
    options.py     options that several commands share, and how their texts are read
    terminal.py    tables, progress bars, numbers as people read them
    *.py           one command each, or a few that are alike

Nothing heavy is imported before a command runs: `nucleate --help` and the shell's completion answer at once.
"""

from nucleate.cli.program import app, main

__all__ = ["app", "main"]
