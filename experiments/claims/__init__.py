"""The statistics by which the paper's claims are decided (results/CRITERIA.md)."""
