"""Operations that make a value where there is none."""
