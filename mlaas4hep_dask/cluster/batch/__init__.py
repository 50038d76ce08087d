"""Batch: workers as jobs of a batch system, and a supervisor that replaces those that are lost."""
