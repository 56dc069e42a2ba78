"""What the book's pages compute and a user of the library does not need."""
