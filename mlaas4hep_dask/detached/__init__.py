"""Detached: work that goes on without its command, in a batch job or a process apart."""
