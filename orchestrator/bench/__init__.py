"""What the machinery costs beside other task queues; `fpga bench queue`. Needs the extra `bench` and a Redis server."""
