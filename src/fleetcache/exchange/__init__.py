"""Commands out and replies in, blocking or awaiting; ``repeating`` decides what may be sent again."""
