"""Near caches under load and faults, and whether what they answer can be right.

`load` is what processes do; `foreign` a writer that knows nothing of the cache; `scenarios` what
goes wrong meanwhile; `runs` puts them together, and gives the history to the `checker`; `mutants`
are near caches that break one rule each, which has to be noticed.
"""
