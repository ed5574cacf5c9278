"""Places where bodies run that no worker's thread waits for: an event loop, other processes, executors.

Decides nothing. Invariant: to import this imports none of them.
"""
