"""Shared by tables and figures: columns, evaluated models, selection, documents."""
