"""What the processes of a fleet publish, and how it is gathered."""
