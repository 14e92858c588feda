"""Training: one step, a vmapped sweep of many models, and what it leaves on disk."""
