"""Predict: whole data sets scored by a bundle's model on a cluster."""
