"""What happens while servers die."""
