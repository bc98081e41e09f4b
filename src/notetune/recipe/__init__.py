"""What a recipe says: its sections, its models, and where their results are."""
