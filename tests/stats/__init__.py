"""What a process counts of its caches."""
