"""Importing this module makes a process, and those forked from it, ignore Ctrl-C.

A terminal sends the interrupt to all processes at once. The client alone shall act on it: it
closes the cluster, and workers that had been interrupted too would fill the screen with tracebacks.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
