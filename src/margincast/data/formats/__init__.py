"""Venue and vendor file formats: each module turns one origin's files into canonical tables."""
