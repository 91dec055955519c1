"""Operations that produce a value if there is none.

get_or_set   read a value, or produce and store it
"""
