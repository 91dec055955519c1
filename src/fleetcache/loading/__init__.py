"""Operations that produce a value if there is none: get_or_set."""
