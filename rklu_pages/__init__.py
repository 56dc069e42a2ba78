"""Code that only the book's pages need: figures, tables, further measurements, and the audit."""
