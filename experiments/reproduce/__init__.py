"""Makes all tables and figures of the paper with one command."""
