"""Importing this module, the first, lets a process import without looking for garbage.

What imports make stays: to look it through takes a quarter of their time.
"""

import gc

gc.disable()
