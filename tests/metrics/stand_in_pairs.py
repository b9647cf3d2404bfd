"""Stands in for the program of `packing_pairs`: all crystals are equal, and the pair (2, 3) is deadly."""

import os


def start(opening):
    def answer(request):
        if [2, 3] in request["pairs"]:
            os.abort()
        return {"outcomes": [[20, 0.0, True, ""] for _ in request["pairs"]]}

    return {}, answer
