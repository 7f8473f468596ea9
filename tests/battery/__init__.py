"""A statistical battery for the mask streams: `make battery`. No part of `make test`."""
