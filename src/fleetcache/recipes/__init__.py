"""Operations that are more than one command."""
