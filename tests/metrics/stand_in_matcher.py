"""A program for the worker of `structure_matcher` that needs no pymatgen and misbehaves when told to.

What it does is said by the atomic number of the first atom of the second crystal; see `DEEDS`.
"""

import os
import signal
import time


def good(first, second):
    return {"rms": [first["lattice"][0][0], None], "angstrom": [second["lattice"][0][0], None], "reason": ""}


def hang(first, second):
    time.sleep(1000)


def crash(first, second):
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(first, second):
    raise ZeroDivisionError("no such luck")


DEEDS = {6: good, 7: hang, 8: crash, 9: fail}


def start(opening):
    known = {}

    def answer(request):
        for name in request["forget"]:
            del known[name]
        known.update(request["crystals"])
        first, second = (known[name] for name in request["pair"])
        return DEEDS[second["numbers"][0]](first, second)

    return {}, answer
