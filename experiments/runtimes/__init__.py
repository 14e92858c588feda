"""Times training, and the SNC in NumPy that the paper timed."""
