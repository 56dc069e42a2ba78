"""Code for the pages that go beyond the paper."""
