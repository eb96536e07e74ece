"""What a key set looks like before it is used: chance hits, nearness to ordinary images, stability, detectability."""
