"""Ctrl-C works in the tests and in what they start, even where the tests themselves were started to ignore it."""

import signal
import threading

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
