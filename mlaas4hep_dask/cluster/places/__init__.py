"""One module for each place where clusters are started; its `start` gives a client of one."""
