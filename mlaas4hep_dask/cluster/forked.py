"""Importing this module, the last, makes a process ready to be forked into workers.

Workers ignore Ctrl-C: a terminal sends the interrupt to all processes at once, and the client alone
shall act on it. It closes the cluster; workers that had been interrupted too would fill the screen
with tracebacks. What was imported stays in pages that all of them share.
"""

import gc
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was begun with it blocked
gc.freeze()
gc.enable()
