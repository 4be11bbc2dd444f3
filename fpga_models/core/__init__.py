"""The method's networks and the pipeline that draws with them."""
