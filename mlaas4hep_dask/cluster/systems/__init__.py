"""Batch systems, a module for each: what its jobs ask for, their scripts, and its queue."""
