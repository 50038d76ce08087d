"""What a partition becomes: derived branches, inputs, labels, weights; and what is checked."""
