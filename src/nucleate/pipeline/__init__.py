"""One verb a file: conform, generate, search, deduplicate, rank, relax, report, predict.

A verb is a plain function with a settings object beside it; the command line only parses and calls.
"""
