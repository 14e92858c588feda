"""How training scales: measured where it can be, counted, and projected."""
