"""The two towers of an alignment: from images, and from responses, to maps of one shape."""
