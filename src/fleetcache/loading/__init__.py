"""Operations that produce a value if there is none.

Its modules:

    cached        ``@cached``: a function whose results are kept in a cache
    recipes       what the arguments of ``@cached`` mean for a function
    templates     ``"profile:{user_id}"``: templates of keys and tags
    arguments     the arguments of a call as a text
    many          get_or_set_many: the same for many values, by one call of the function that makes them
    many_leases   leases of many entries, each step in one write to each server
    many_leading  the work of a leader of many loads
    get_or_set    read a value, or load it: once in the process, and once in the fleet
    wishes        what a caller wants, and what he has seen
    joining       waiting for a load of this process
    leading       the leader's work: lease, load, store, publish
    flights       the loads that run in this process, which later callers join
    errors        copies of a loader's exception, one for each caller who waited for it
    leases        the fleet's permission to load one entry
    guards        what gives up a value that is being loaded: tags, `clear`, `delete_pattern`
    load          what a loader may ask and say: `current_load`
    renewing      who renews an old value while its callers go on
    invalidation  give up values: by key, by tag
"""
