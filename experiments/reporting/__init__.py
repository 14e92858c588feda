"""What tables and figures share: labels, outcomes, selection, documents."""
