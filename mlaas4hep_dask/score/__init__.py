"""Score: a loaded network; raw events in, their scores out, in natural batches."""
