"""Words: the full-text index's terms, stems and query expressions."""
