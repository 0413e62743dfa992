"""The floor the notebooks and the command stand on: presets, manifests, the runner.

Importing it loads no torch: a run that has nothing to do must say so at once.
"""
