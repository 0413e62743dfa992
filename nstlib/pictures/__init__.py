"""Pictures and films without networks: files, sizes, colors, what moves."""
