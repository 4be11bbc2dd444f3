"""What is measured, by hand or by a test, and belongs to no room of the product."""
