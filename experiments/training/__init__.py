"""Training: one step, a sweep of many models, and what it leaves on disk."""
