"""The arithmetic of each kind: its tally, on NumPy, and its activation, on torch.

Only training, export and scoring import these modules, and the kinds inside functions.
"""
