"""The stage that stands in for others where the machinery around them is measured or disturbed."""
