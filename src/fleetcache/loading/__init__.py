"""Operations that produce a value if there is none.

Its modules:

    get_or_set   read a value, or produce and store it
"""
