"""What an evolution strategy searches: masks, or weights and masks."""
