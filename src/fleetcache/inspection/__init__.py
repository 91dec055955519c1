"""Looks into a running cache: what it holds, entry by entry; for the admin, the command line and a shell.

Its modules:

    keys        what is used from outside: pages of names, an entry described, and the actions on entries
    erasing     lifetimes, and deletion, one by one or by pattern in steps
    describing  all there is to know of one entry
    misses      why a cache does not return a value; where a key is that is not where it is looked for
    previews    the bytes of a value: which codec wrote them, and what they show
    writing     values as text, as far as they are shown
    pickles     what a pickle holds, told from its opcodes
    scanning    a walk through all names, in steps of bounded work
    names       names as text that can be read back, which names a pattern means, and names masked
    advice      commands that work when they are pasted, and rights that a user lacks
    blame       whose function raised an error: the site's, or the library's
    rates       what a fleet does at the moment
    tags        the tags that are in use, and the entries that have one
    bench       measures a cache against a bare socket
    warm        calls a site's function, so that its results are in the cache

Nothing here sends a command whose time depends on how much the server holds: names are found by SCAN, values are read
in part, members by the page.  Nothing is unpickled unless the caller asks for it.
"""
