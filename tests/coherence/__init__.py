"""Near caches and loading under load and faults, and whether what they answer can be right.

Of near caches: `load` is what processes do; `foreign` a writer that knows nothing of the cache; `scenarios` what
goes wrong meanwhile; `runs` puts them together, and gives the history to the `checker`; `mutants`
are near caches that break one rule each, which has to be noticed.

Of loading: `callers` is what processes do, with a `database` from which they load; `crowds` are the scenarios, put
together, and given to the checker of `loads`; `acts` play what needs one order of events; `loadmutants` break one rule each.
"""
