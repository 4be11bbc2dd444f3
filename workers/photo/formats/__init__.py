"""What each container of photos holds besides pixels, and how a change is written into it. Runs in the child only."""
