"""The figures, tables and widgets of the book's pages."""
