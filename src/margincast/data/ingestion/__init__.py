"""Ingestion: from a recognised source to rows of the store, every one accounted for."""
