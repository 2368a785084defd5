"""Captures of websocket feeds by one recorder, with a decoder a venue."""
