"""The scenes, in the order in which they are played."""
