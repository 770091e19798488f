"""What is known of the speed of variants."""
