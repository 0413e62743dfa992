"""One paper, one file, and the same two verbs: ``fit(faces, styles)`` and ``stylize(content, style)``."""
