"""Faces: found, framed, parsed into regions, recognized, and drawn."""
