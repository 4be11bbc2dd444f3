"""What the machinery costs beside other task queues."""
