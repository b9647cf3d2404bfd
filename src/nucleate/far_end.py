"""The far end of `processes`: one program behind a pipe.

    python far_end.py PROGRAM.py

This file is run, possibly by the interpreter of another environment, so it needs only the standard library.
It speaks JSON, one object a line. PROGRAM.py offers `start(opening) -> (hello, answer)`: it is given the
first request, `hello` is the reply to it, and `answer` makes the reply to every later one. JSON writes floats
so that they read back exactly.
"""

import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def load(path: str) -> ModuleType:
    """The module in the file `path`."""
    spec = importlib.util.spec_from_file_location("nucleate_program", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reply_to(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The reply to one request with its wall time; whatever goes wrong becomes its `failure`."""
    started = time.monotonic()
    try:
        reply = answer(request)
    except Exception as error:  # noqa: BLE001  a program may raise anything; it is reported, not hidden
        reply = {"failure": one_line(error)}
    return {**reply, "seconds": time.monotonic() - started}


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def listen(requests: "queue.Queue[dict[str, Any]]") -> None:
    """Feed the queue; when the other end is gone, so are we, with everything we started."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def main() -> None:
    # Programs print as they please; only replies may reach the pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    # Running a file puts its folder first, where our names could hide real packages; the user's own modules
    # are looked for in the current folder, after everything that is installed.
    own = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != own]
    sys.path.append(os.getcwd())
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=listen, args=(requests,), daemon=True).start()

    def say(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    try:
        hello, answer = load(sys.argv[1]).start(requests.get())
    except Exception as error:  # noqa: BLE001  as above
        say({"failure": one_line(error), "missing": error.name if isinstance(error, ImportError) else None})
        return
    say(hello)
    while True:
        say(reply_to(requests.get(), answer))


if __name__ == "__main__":
    main()
