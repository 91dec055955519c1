"""Which server is asked; nothing above knows how many servers there are."""
