"""Neural style transfer for portraits: one paper, one file.

Nothing happens on import. Start with ``nstlib.methods.gatys`` or the command ``nst --help``.
"""

__version__ = "0.1.0"
